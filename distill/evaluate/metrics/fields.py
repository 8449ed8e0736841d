"""`per_field`: how many fields of JSON answers are right, each on its own and all together.

Nested objects count by their leaves (`address.city`); lists are compared whole. A prediction that is not a JSON object
has no field right. A field that the answer does not have and the prediction does is counted as `extra`: it makes
nothing wrong here (`exact_match` does that).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np

from distill.errors import InputError
from distill.evaluate.holdout import Item
from distill.evaluate.metrics.base import Counted, Metric, parsed, ratio, with_answers
from distill.io import canonical

__all__ = ["PerField"]


@dataclass(frozen=True)
class PerField(Metric):
    """Micro accuracy over the fields of the answers, or over `fields`."""

    fields: tuple[str, ...] = ()

    def check(self, items: Sequence[Item]) -> None:
        seen: set[str] = set()
        for item in items:
            if not item.has_answer:
                continue
            value = parsed(item.answer)
            if not isinstance(value, dict):
                raise InputError(f"item {item.id}: the answer is no JSON object", field=f"metric {self.name}")
            seen |= self._chosen(value).keys()
        if missing := set(self.fields) - seen:
            raise InputError(f"no answer has the field {sorted(missing)[0]!r}", field=f"metric {self.name}")
        if not seen:
            raise InputError("no answer has a field", field=f"metric {self.name}")

    def count(self, items: Sequence[Item], predictions: Sequence[str]) -> Counted:
        self.check(items)
        wanted = [self._chosen(parsed(item.answer)) if item.has_answer else {} for item in items]
        found = [_flat(parsed(prediction)) for prediction in predictions]
        names = sorted({name for fields in wanted for name in fields})
        right, there = np.zeros((len(items), len(names))), np.zeros((len(items), len(names)))
        extra: dict[str, int] = {}
        for row, (answer, prediction) in enumerate(zip(wanted, found, strict=True)):
            for column, name in enumerate(names):
                if name in answer:
                    there[row, column] = 1
                    right[row, column] = float(name in prediction and prediction[name] == answer[name])
            if items[row].has_answer and not self.fields:
                for name in prediction.keys() - answer.keys():
                    extra[name] = extra.get(name, 0) + 1
        figures = {
            name: {"accuracy": round(float(right[:, k].sum() / there[:, k].sum()), 4), "n": int(there[:, k].sum())}
            for k, name in enumerate(names)
        }
        per_item = right.sum(1) / np.maximum(there.sum(1), 1)
        sums = np.stack([right.sum(1), there.sum(1)], 1)
        details: dict[str, Any] = {"fields": figures, "extra": dict(sorted(extra.items()))}
        return Counted(per_item, sums, ratio, weight=with_answers(items), details=details)

    def definition(self) -> str:
        of = f"the fields {', '.join(self.fields)}" if self.fields else "all fields of the answers"
        return f"share of {of} that the predictions have right, each field of each item counted once"

    def _chosen(self, value: Any) -> dict[str, bytes]:
        flat = _flat(value)
        return {name: flat[name] for name in self.fields if name in flat} if self.fields else flat


def _flat(value: Any) -> dict[str, bytes]:
    """Leaf -> canonical value; empty where `value` is no object."""
    return dict(_leaves(cast("dict[str, Any]", value), "")) if isinstance(value, dict) else {}


def _leaves(value: dict[str, Any], before: str) -> Iterator[tuple[str, bytes]]:
    for key, inner in value.items():
        if isinstance(inner, dict) and inner:
            yield from _leaves(cast("dict[str, Any]", inner), f"{before}{key}.")
        else:
            yield f"{before}{key}", canonical(inner)
