"""`macro_f1`: F1 of each class that the answers hold, averaged with equal weight; and who is taken for whom.

A prediction without a readable field is a miss of its class. One that names a class no answer holds is a miss too.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np

from distill.evaluate.holdout import Item
from distill.evaluate.metrics.base import Counted, Floats, Metric, with_answers
from distill.evaluate.metrics.values import check_field, label

__all__ = ["UNREADABLE", "MacroF1"]

UNREADABLE = "(unreadable)"
_PAIRS = 10  # confused pairs that are listed


@dataclass(frozen=True)
class MacroF1(Metric):
    """F1 over the classes of the answers."""

    field: str | None = None

    def check(self, items: Sequence[Item]) -> None:
        check_field(self, items, self.field)

    def count(self, items: Sequence[Item], predictions: Sequence[str]) -> Counted:
        self.check(items)
        true = [cast("str", label(item.answer, self.field)) if item.has_answer else None for item in items]
        found = [label(prediction, self.field) for prediction in predictions]
        classes = sorted({name for name in true if name is not None})
        index = {name: position for position, name in enumerate(classes)}
        hit, said, is_ = (np.zeros((len(items), len(classes))) for _ in range(3))
        for row, (wanted, name) in enumerate(zip(true, found, strict=True)):
            if wanted is None:
                continue
            is_[row, index[wanted]] = 1
            if name in index:
                said[row, index[name]] = 1
                hit[row, index[name]] = float(name == wanted)
        details = _details(classes, true, found, hit.sum(0), said.sum(0), is_.sum(0))
        sums = np.concatenate([hit, said, is_], 1)
        return Counted(hit.sum(1), sums, _mean_f1, weight=with_answers(items), details=details)

    def definition(self) -> str:
        what = f"field {self.field!r}" if self.field else "whole text"
        return f"F1 of the {what}, mean over the classes of the answers; an unreadable prediction is a miss"


def _mean_f1(sums: Floats) -> Floats:
    hit, said, is_ = np.split(sums, 3, axis=1)
    total = said + is_
    f1 = np.divide(2 * hit, total, out=np.zeros_like(total), where=total > 0)
    present = is_ > 0  # a resample may hold none of a class
    return (f1 * present).sum(1) / np.maximum(present.sum(1), 1)


def _details(
    classes: Sequence[str],
    true: Sequence[str | None],
    found: Sequence[str | None],
    hit: Floats,
    said: Floats,
    is_: Floats,
) -> dict[str, Any]:
    """Figures of each class, the confusion matrix (answer -> prediction -> items), and its largest wrong cells."""
    matrix: dict[str, Counter[str]] = {name: Counter() for name in classes}
    for wanted, name in zip(true, found, strict=True):
        if wanted is not None:
            matrix[wanted][UNREADABLE if name is None else name] += 1
    figures = {
        name: {
            "n": int(is_[k]),
            "precision": round(float(hit[k] / said[k]), 4) if said[k] else None,
            "recall": round(float(hit[k] / is_[k]), 4),
            "f1": round(float(2 * hit[k] / (said[k] + is_[k])), 4),
        }
        for k, name in enumerate(classes)
    }
    wrong = [(count, wanted, name) for wanted, row in matrix.items() for name, count in row.items() if name != wanted]
    wrong.sort(key=lambda cell: (-cell[0], cell[1], cell[2]))
    return {
        "classes": figures,
        "confusion": {name: dict(sorted(row.items())) for name, row in matrix.items()},
        "confused": [{"answer": a, "prediction": b, "items": n} for n, a, b in wrong[:_PAIRS]],
    }
