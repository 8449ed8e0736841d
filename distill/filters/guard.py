"""What no chain can judge is taken out before one sees it, and what a row must have is found out."""

# Arrow's arrays are generic over types that only run time knows.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportUnknownParameterType=false, reportMissingTypeArgument=false
from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import xxhash

from distill.dataset.schema import FATE_FIELDS
from distill.errors import InputError
from distill.filters.base import naming
from distill.filters.near.digests import Digests
from distill.filters.reading import Batch, Source
from distill.filters.text import present
from distill.recipe import FilterStep

__all__ = ["Guard", "required", "some", "verdict_names"]


class Guard:
    """Takes the rows out of a batch that no chain can judge: without a field that a step names, or with an id that
    came before. Rows without an id get one."""

    def __init__(
        self, source: Source, required: Mapping[tuple[str, ...], str], invalid: Callable[[int, str], None]
    ) -> None:
        self._unit = source.unit
        self._required = required
        self._invalid = invalid
        self._seen = Digests()
        self._has_id = "id" in source.schema.names

    def check(self, batch: Batch) -> tuple[Batch, pa.Table]:
        """The usable rows, and the table for the chain: the same with ids as text."""
        usable = np.ones(batch.table.num_rows, bool)
        for fields, step in self._required.items():
            with naming(step):
                there = present(batch.table, fields)
            for row in np.flatnonzero(usable & ~there).tolist():
                absent = [name for name in fields if not present(batch.table.slice(row, 1), (name,))[0]]
                self._invalid(batch.places[row], f"no {' and no '.join(absent) or 'text'}")
            usable &= there
        names = self._names(batch, usable)
        if not usable.all():
            chosen = np.flatnonzero(usable).tolist()
            originals = batch.originals and [batch.originals[row] for row in chosen]
            batch = Batch(
                batch.table.take(pa.array(chosen, pa.int64())), [batch.places[row] for row in chosen], originals
            )
            names = [names[row] for row in chosen]
        table, text_ids = batch.table, pa.array(names, pa.string())
        if not self._has_id:
            if "id" in table.column_names:  # rows without any column
                table = table.drop_columns("id")
            table = table.append_column("id", text_ids)
        elif pa.types.is_string(table.schema.field("id").type):
            table = table.set_column(table.column_names.index("id"), "id", text_ids)
        judged = table.set_column(table.column_names.index("id"), "id", text_ids)
        return Batch(table, batch.places, batch.originals), judged

    def _names(self, batch: Batch, usable: np.ndarray) -> list[str]:
        given = batch.table.column("id").to_pylist() if self._has_id else [None] * batch.table.num_rows
        names = [
            f"{self._unit}-{place}" if value is None or value == "" else str(value)
            for value, place in zip(given, batch.places, strict=True)
        ]
        if self._has_id:
            rows: list[int] = np.flatnonzero(usable).tolist()
            keys = [xxhash.xxh3_128_digest(names[row].encode("utf-8")) for row in rows]
            for row, key, number in zip(rows, keys, self._seen.find(keys), strict=True):
                new = number < 0 and self._seen.recent(key) < 0
                if new:
                    self._seen.add(key)
                elif given[row] in (None, ""):
                    names[row] += "_"  # another row has the name that this one was given
                else:
                    self._invalid(batch.places[row], f"the id {names[row]!r} came before")
                    usable[row] = False
        return names


def verdict_names(source: Source, skip: bool, notes: list[str]) -> list[str]:
    names = [kind.name for kind in FATE_FIELDS]
    clash = [name for name in names if name in source.schema.names]
    if not clash:
        return names
    if not skip:
        raise InputError(
            f"columns {', '.join(clash)} have the names of the verdict's columns",
            path=source.path,
            line=1,
            hint="rename them, or use --on-error skip: the verdict's columns are then called distill_filter and so on",
        )
    prefix = "distill_"
    while any(f"{prefix}{name}" in source.schema.names for name in names):
        prefix = f"distill_{prefix}"
    notes.append(f"the input has columns {', '.join(clash)}: the verdict's columns begin with {prefix}")
    return [f"{prefix}{name}" for name in names]


def required(steps: Sequence[FilterStep]) -> dict[tuple[str, ...], str]:
    """The fields that steps name, and the first step that does; a schema is about an answer even when it names none.
    Masking takes what is there."""
    named: dict[tuple[str, ...], str] = {}
    for step in steps:
        fields: tuple[str, ...] = getattr(step, "fields", ())
        if step.kind != "pii" and (fields or step.kind == "schema"):
            named.setdefault(fields or ("response",), step.name or step.kind)
    return named


def some(originals: list[dict[str, Any]] | None, keep: np.ndarray) -> list[dict[str, Any]] | None:
    return originals and [originals[row] for row in np.flatnonzero(keep)]
