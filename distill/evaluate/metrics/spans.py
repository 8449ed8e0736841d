"""`span_f1`: extracted spans, found exactly or by overlap.

Answers and predictions are JSON (or one field of it): a list of texts, a list of objects (`text`, or `start` and
`end`, with or without `label`), or an object of lists by label. Plain text is one span.

    match=exact     a span is right when text (or bounds) and label are equal
    match=tokens    words (or characters between bounds) in common, as SQuAD counts them, https://arxiv.org/abs/1606.05250

The value is micro F1 over all items: spans that are right, among those said and those wanted. `mean=items` averages
the F1 of each item instead. What cannot be read holds no span.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np

from distill.errors import InputError
from distill.evaluate.holdout import Item
from distill.evaluate.metrics.base import Counted, Floats, Metric, parsed, shares, with_answers

__all__ = ["SpanF1"]

_Span = tuple[str, str | tuple[int, int]]
"""Label, and text or bounds."""
_LONGEST = 100_000  # characters between bounds: a model may write any number


@dataclass(frozen=True)
class SpanF1(Metric):
    """F1 of extracted spans."""

    field: str | None = None
    match: str = "exact"
    mean: str = "spans"

    def check(self, items: Sequence[Item]) -> None:
        for item in items:
            if item.has_answer and self._read(item.answer) is None:
                raise InputError(
                    f"item {item.id}: the answer holds no spans"
                    + (f" in its field {self.field!r}" if self.field else ""),
                    field=f"metric {self.name}",
                    hint='a list of texts, of objects with `text` or `start` and `end`, or {"label": [texts]}',
                )

    def count(self, items: Sequence[Item], predictions: Sequence[str]) -> Counted:
        self.check(items)
        sums = np.zeros((len(items), 3))
        for row, (item, prediction) in enumerate(zip(items, predictions, strict=True)):
            if not item.has_answer:
                continue
            wanted, said = self._units(item.answer), self._units(prediction)
            sums[row] = (wanted & said).total(), said.total(), wanted.total()
        per_item = _f1(sums)
        if self.mean == "items":
            return shares(per_item, with_answers(items))
        right, said, due = (int(total) for total in sums.sum(0))
        totals = {"right": right, "said": said, "wanted": due}
        return Counted(per_item, sums, _f1, weight=with_answers(items), details=totals)

    def definition(self) -> str:
        what = f"field {self.field!r}" if self.field else "answer"
        how = "spans equal in text and label" if self.match == "exact" else "words that spans have in common"
        return f"F1 of the spans of the {what}: {how}, " + (
            "mean over items" if self.mean == "items" else "over all items together"
        )

    def _units(self, text: str) -> Counter[Any]:
        spans = self._read(text) or []
        if self.match == "exact":
            return Counter((name, _plain(part) if isinstance(part, str) else part) for name, part in spans)
        units: Counter[Any] = Counter()
        for name, part in spans:
            units.update((name, piece) for piece in (_words(part) if isinstance(part, str) else range(*part)))
        return units

    def _read(self, text: str) -> list[_Span] | None:
        value = parsed(text)
        if self.field is not None:
            if not isinstance(value, dict) or self.field not in value:
                return None
            value = cast("Any", value[self.field])
        elif value is None or isinstance(value, (int, float)):
            value = text.strip()
        try:
            return list(_spans(value, ""))
        except (TypeError, ValueError, KeyError):
            return None


def _spans(value: Any, name: str) -> Iterator[_Span]:
    if value is None or value == "":
        return
    if isinstance(value, str):
        yield name, value
    elif isinstance(value, list):
        for member in cast("list[Any]", value):
            yield from _spans(member, name)
    elif isinstance(value, dict):
        span = cast("dict[str, Any]", value)
        label = str(span.get("label", span.get("type", name)))
        if isinstance(span.get("start"), int) and isinstance(span.get("end"), int):
            if not 0 <= span["start"] <= span["end"] <= span["start"] + _LONGEST:
                raise ValueError("bounds")
            yield label, (span["start"], span["end"])
        elif isinstance(span.get("text"), str):
            yield label, span["text"]
        else:
            for key, member in span.items():
                if not isinstance(member, (list, str)):
                    raise TypeError("a span")
                yield from _spans(member, key)
    else:
        raise TypeError("a span")


def _f1(sums: Floats) -> Floats:
    """Right, said, wanted -> F1; 1 where nothing was wanted and nothing said."""
    total = sums[:, 1] + sums[:, 2]
    return np.divide(2 * sums[:, 0], total, out=np.ones(len(sums)), where=total > 0)


def _plain(text: str) -> str:
    return " ".join(unicodedata.normalize("NFKC", text).split())


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", unicodedata.normalize("NFKC", text).casefold())
