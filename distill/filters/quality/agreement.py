"""Rows whose label is in doubt, because samples, teachers or annotators gave different ones."""

# Arrow's arrays are generic over types that only run time knows.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportUnknownParameterType=false, reportMissingTypeArgument=false
from __future__ import annotations

from collections import Counter
from typing import Any

import pyarrow as pa

from distill.errors import InputError
from distill.filters.base import Verdicts
from distill.filters.normalise import excerpt, plain
from distill.recipe import AgreementStep, suggest

__all__ = ["AgreementFilter"]


class AgreementFilter:
    """Drops a row whose labels agree too little (`disagreement`), whose own label is not the one most agree on
    (`not_majority`), or that has fewer than two labels (`too_few_labels`).

    Labels are compared without case, punctuation and spacing. The score is the share of the most frequent one.
    """

    def __init__(self, step: AgreementStep, name: str = "agreement") -> None:
        self.name = name
        self._step = step

    def judge(self, rows: pa.Table) -> Verdicts:
        step, verdicts = self._step, Verdicts.kept(rows.num_rows)
        columns = [_column(rows, name) for name in step.columns]
        own = _column(rows, step.label) if step.label is not None else None
        for row in range(rows.num_rows):
            labels = [label for column in columns for label in _labels(column[row])]
            if len(labels) < 2:
                if step.missing == "drop":
                    verdicts.drop(row, "too_few_labels", f"{len(labels)} labels, at least 2 wanted")
                continue
            counts = Counter(plain(label) for label in labels)
            best, most = counts.most_common(1)[0]
            share = verdicts.score[row] = most / len(labels)
            if share < step.min:
                verdicts.drop(row, "disagreement", _shown(labels), score=share)
            elif own is not None:
                mine = _labels(own[row])
                if len(mine) != 1 or counts[plain(mine[0])] < most:
                    shown = mine[0] if mine else "no label"
                    verdicts.drop(row, "not_majority", f"{excerpt(shown, 60)}; {_shown(labels)}", best, share)
        return verdicts


def _column(rows: pa.Table, name: str) -> list[Any]:
    if name not in rows.column_names:
        raise InputError(f"no column {name}; {suggest(name, rows.column_names)}", field="columns")
    return rows.column(name).to_pylist()


def _labels(value: Any) -> list[str]:
    """The labels in a value of a column: one, those of a list, none of a null or an empty text."""
    if isinstance(value, (list, tuple)):
        return [label for item in value for label in _labels(item)]  # pyright: ignore[reportUnknownVariableType]
    if value is None or value == "":
        return []
    return [f"{value:g}" if isinstance(value, float) else str(value)]


def _shown(labels: list[str]) -> str:
    counts = Counter(excerpt(label, 40) for label in labels)
    return ", ".join(f"{label} ×{count}" for label, count in counts.most_common(5))
