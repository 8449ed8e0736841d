"""The last step of a chain: choose among what all other steps have kept.

A choice needs the whole set, so it is a second pass. In a run it is made when the kept rows stand in their file, and
decides which of them go into the training files. Over a file, the chain streams its kept and rejected rows into a
folder of their own; then the kept rows are read twice (texts and embeddings; then the rows themselves), and the two
files of the result appear. Memory holds the embeddings and texts of the kept rows, about 2 KB a row with 384 numbers.
Rows that are not chosen follow the other rejected ones, with filter `diversity` and reason `not_chosen`.
"""

# Arrow's arrays are generic over types that only run time knows.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportUnknownParameterType=false, reportMissingTypeArgument=false
from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from distill.dataset import RowWriter
from distill.dataset.schema import FATE_FIELDS
from distill.errors import InputError
from distill.filters.reading import open_source
from distill.filters.selection.diversity import choose
from distill.filters.selection.report import figures, page
from distill.filters.semantic.embedding import load_embedder
from distill.filters.text import texts
from distill.io import atomic_path, write_text
from distill.recipe import DiversityStep

__all__ = ["ChoicePass", "Chosen", "check_choice"]


@dataclass(frozen=True, slots=True)
class Chosen:
    """What the pass did."""

    stays: NDArray[np.bool_]
    """Of every row that the chain kept, whether it was chosen."""
    figures: dict[str, Any]
    page: Path

    @property
    def kept(self) -> int:
        """Rows that were chosen."""
        return int(self.stays.sum())

    @property
    def dropped(self) -> int:
        """Rows that were not."""
        return len(self.stays) - self.kept


class ChoicePass:
    """Chooses among the rows of `kept.*` in a folder, and writes the result to another."""

    def __init__(
        self, step: DiversityStep, name: str, folder: Path, note: Callable[[str], None] = lambda text: None
    ) -> None:
        self._step = step
        self._name = name
        self._note = note
        self._embedder = load_embedder(step.model, folder=folder, note=note)

    def run(self, streamed: Path, out: Path, format: str) -> Chosen:
        """Read `streamed/kept.*` and `streamed/rejected.*`, write both to `out`, and `out/diversity.html`.

        Raises:
            InputError: the rows lack a column that the step names.
        """
        kept, rejected = f"kept.{format}", f"rejected.{format}"
        chosen = self.choose(streamed / kept, out / "diversity.html")
        write = _write_parquet if format == "parquet" else _write_lines
        write(streamed, out, kept, rejected, chosen.stays, self._name)
        return chosen

    def choose(self, rows: Path, report: Path) -> Chosen:
        """Choose among the rows of a file, and draw what was chosen into `report`.

        Raises:
            InputError: the rows lack a column that the step names.
        """
        contents, groups, scores = self._columns(rows)
        vectors = self._embedder.embed(
            contents, progress=lambda done, total: self._note(f"{self._name}: embedded {done:,} of {total:,} texts")
        )
        count = int(self._step.keep) if self._step.keep >= 1 else round(self._step.keep * len(contents))
        self._note(f"{self._name}: choosing {count:,} of {len(contents):,} rows")
        places = choose(vectors, count, groups=groups, scores=scores, method=self._step.method)
        chosen = np.zeros(len(contents), bool)
        chosen[places] = True
        found = self._figures(contents, vectors, groups, chosen)
        if len(contents):
            title = f"{len(places):,} of {len(contents):,} rows chosen"
            write_text(report, page(title, found, vectors, chosen, groups))
        return Chosen(chosen, found, report)

    def _columns(self, path: Path) -> tuple[list[str], list[str] | None, NDArray[np.float64] | None]:
        """Text, group and score of every row."""
        contents, groups, scores = list[str](), list[str](), list[float]()
        if path.stat().st_size:  # a JSONL file without rows is empty
            for batch in open_source(path, _impossible).batches():
                if not batch.table.num_rows:
                    continue
                contents += texts(batch.table, self._step.fields)
                if self._step.by is not None:
                    groups += [_shown(value) for value in _column(batch.table, self._step.by, "by")]
                if self._step.score is not None:
                    scores += [
                        _number(value, self._step.score) for value in _column(batch.table, self._step.score, "score")
                    ]
        return (
            contents,
            groups if self._step.by is not None else None,
            np.array(scores, np.float64) if self._step.score is not None else None,
        )

    def _figures(
        self,
        contents: Sequence[str],
        vectors: NDArray[np.float32],
        groups: Sequence[str] | None,
        chosen: NDArray[np.bool_],
    ) -> dict[str, Any]:
        random = np.zeros(len(contents), bool)
        random[np.random.default_rng(0).permutation(len(contents))[: int(chosen.sum())]] = True
        result: dict[str, Any] = {}
        for name, mask in (("before", np.ones(len(contents), bool)), ("random", random), ("after", chosen)):
            rows = [row for row, chosen_ in enumerate(mask.tolist()) if chosen_]
            some = None if groups is None else [groups[row] for row in rows]
            if rows:
                result[name] = figures([contents[row] for row in rows], vectors[rows], some)
        return result


def _write_parquet(source: Path, out: Path, kept: str, rejected: str, chosen: NDArray[np.bool_], name: str) -> None:
    rows, fates = pq.ParquetFile(source / kept), pq.ParquetFile(source / rejected)
    schema, verdicts = rows.schema_arrow, fates.schema_arrow
    added = verdicts.names[len(schema.names) :]
    with RowWriter(out / kept, schema) as keep, RowWriter(out / rejected, verdicts) as drop:
        for batch in fates.iter_batches():
            drop.write(pa.Table.from_batches([batch]))
        start = 0
        for batch in rows.iter_batches():
            table = pa.Table.from_batches([batch])
            mask = chosen[start : start + table.num_rows]
            start += table.num_rows
            keep.write(table.filter(pa.array(mask)))
            lost = table.filter(pa.array(~mask))
            for column, value in zip(added, (name, "not_chosen", "", "", None), strict=True):
                field = verdicts.field(column)
                lost = lost.append_column(field, pa.array([value] * lost.num_rows, field.type))
            drop.write(lost)


def _write_lines(source: Path, out: Path, kept: str, rejected: str, chosen: NDArray[np.bool_], name: str) -> None:
    with (
        atomic_path(out / kept) as keep_path,
        atomic_path(out / rejected) as drop_path,
        keep_path.open("wb") as keep,
        drop_path.open("wb") as drop,
    ):
        with (source / rejected).open("rb") as lines:
            for line in lines:
                drop.write(line)
        with (source / kept).open("rb") as lines:
            for line, stays in zip(lines, chosen.tolist(), strict=True):
                if stays:
                    keep.write(line)
                    continue
                row = orjson.loads(line)
                clash = any(field.name in row for field in FATE_FIELDS)
                for field, value in zip(FATE_FIELDS, (name, "not_chosen", "", "", None), strict=True):
                    row[f"distill_{field.name}" if clash else field.name] = value
                drop.write(orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE))
        for file in (keep, drop):
            file.flush()
            os.fsync(file.fileno())


def check_choice(step: DiversityStep, schema: pa.Schema) -> None:
    """Raise InputError where rows of this schema lack a column that the step names."""
    rows = schema.empty_table()
    texts(rows, step.fields)
    for name, option in ((step.by, "by"), (step.score, "score")):
        if name is not None:
            _column(rows, name, option)


def _column(table: pa.Table, name: str, option: str) -> list[Any]:
    """The values of a column; `scores.judge` is a member of a column of structs or maps."""
    column, _, member = name.partition(".")
    if name in table.column_names:
        return table.column(name).to_pylist(maps_as_pydicts="strict")
    if column not in table.column_names:
        hint = f"the rows have: {', '.join(table.column_names)}"
        raise InputError(f"diversity: no column {name}", field=option, hint=hint)
    values = table.column(column).to_pylist(maps_as_pydicts="strict")
    return [value.get(member) if isinstance(value, dict) else None for value in values]


def _shown(value: Any) -> str:
    return " > ".join(str(item) for item in value) if isinstance(value, list) else str(value)


def _number(value: Any, column: str) -> float:
    if value is None:
        return float("nan")
    try:
        return float(value)
    except (TypeError, ValueError):
        raise InputError(f"diversity: column {column} holds {value!r}, not a number", field="score") from None


def _impossible(place: int, why: str) -> None:
    raise InputError(why, line=place)
