"""Rows by a number that they carry: a judge's score, a margin, a count."""

# Arrow's arrays are generic over types that only run time knows.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportUnknownParameterType=false, reportMissingTypeArgument=false
from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute

from distill.errors import InputError
from distill.filters.base import Verdicts
from distill.recipe import ScoreStep, suggest

__all__ = ["ScoreFilter"]

pc: Any = pyarrow.compute


class ScoreFilter:
    """Drops a row whose number is under the least (`low_score`) or over the greatest value (`high_score`), or that has
    none (`no_score`). The score is the number."""

    def __init__(self, step: ScoreStep, name: str = "score") -> None:
        self.name = name
        self._step = step

    def judge(self, rows: pa.Table) -> Verdicts:
        step, verdicts = self._step, Verdicts.kept(rows.num_rows)
        values = _numbers(rows, step.column)
        verdicts.score[:] = values
        absent = np.isnan(values)
        low = values < step.min if step.min is not None else np.zeros(len(values), bool)
        high = values > step.max if step.max is not None else np.zeros(len(values), bool)
        wrong = low | high | absent if step.missing == "drop" else low | high
        for row in np.flatnonzero(wrong).tolist():
            value = float(values[row])
            if absent[row]:
                verdicts.drop(row, "no_score", f"no number in {step.column}")
            elif low[row]:
                verdicts.drop(row, "low_score", f"{step.column} is {value:g}, at least {step.min:g} wanted", "", value)
            else:
                verdicts.drop(row, "high_score", f"{step.column} is {value:g}, at most {step.max:g} wanted", "", value)
        return verdicts


def _numbers(rows: pa.Table, path: str) -> np.ndarray:
    """Shape (n,): the column's numbers, NaN where a row has none. Text that reads as a number is one."""
    name, _, entry = path.partition(".")
    if path in rows.column_names:
        name, entry = path, ""
    if name not in rows.column_names:
        raise InputError(f"no column {name}; {suggest(name, rows.column_names)}", field="column")
    column = rows.column(name).combine_chunks() if rows.num_rows else rows.column(name)
    kind = column.type
    if entry and pa.types.is_map(kind):
        column = pc.map_lookup(column, pa.scalar(entry, kind.key_type), "first")
    elif entry and pa.types.is_struct(kind):
        names = [kind.field(place).name for place in range(kind.num_fields)]
        if entry not in names:
            raise InputError(f"no entry {entry} in column {name}; {suggest(entry, names)}", field="column")
        column = pc.struct_field(column, entry)
    elif entry:
        raise InputError(f"column {name} holds {kind}, which has no entries", field="column")
    kind = column.type
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return np.array([_number(value) for value in column.to_pylist()], np.float64)
    if not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind) or _is_empty(kind)):
        hint = "name an entry of it: column.entry" if pa.types.is_map(kind) or pa.types.is_struct(kind) else None
        raise InputError(f"column {path} holds {kind}, not numbers", field="column", hint=hint)
    return np.asarray(pc.fill_null(column.cast(pa.float64()), np.nan), np.float64)


def _is_empty(kind: pa.DataType) -> bool:
    return pa.types.is_null(kind) or pa.types.is_boolean(kind)


def _number(value: str | None) -> float:
    try:
        return float(value) if value is not None else np.nan
    except ValueError:
        return np.nan
