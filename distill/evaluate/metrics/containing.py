"""`contains`: the answer stands in the prediction, whatever stands around it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

from distill.evaluate.holdout import Item
from distill.evaluate.metrics.base import Counted, Metric, parsed, shares, with_answers

__all__ = ["Contains", "stands_in"]


@dataclass(frozen=True)
class Contains(Metric):
    """The answer, or one of a list of answers, stands in the prediction as whole words."""

    def count(self, items: Sequence[Item], predictions: Sequence[str]) -> Counted:
        right = [
            float(any(stands_in(answer, text) for answer in _answers(item)))
            for item, text in zip(items, predictions, strict=True)
        ]
        return shares(right, with_answers(items))

    def definition(self) -> str:
        return "share that holds the answer (of several given ones, any) as whole words, whatever the case"


def stands_in(part: str, whole: str) -> bool:
    """Whether `part` stands in `whole` as whole words or as a whole number, whatever the case."""
    wanted = _plain(part)
    return bool(wanted) and re.search(rf"(?<!\w)(?<!\d\.){re.escape(wanted)}(?!\w|\.\d)", _plain(whole)) is not None


def _plain(text: str) -> str:
    """One case, one kind of space, and no separators inside numbers."""
    return re.sub(r"(?<=\d),(?=\d{3}\b)", "", " ".join(text.casefold().split()))


def _answers(item: Item) -> list[str]:
    value = parsed(item.answer)
    return [str(each) for each in cast("list[Any]", value)] if isinstance(value, list) else [item.answer]
