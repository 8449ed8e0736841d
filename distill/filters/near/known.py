"""What a deduplicating step knows before its first row, and hands on to later runs.

`against` names datasets whose rows must not come again. `index` is a Parquet file of what a step has kept: `id`, and
the folded text (`minhash`) or the digest of the normalised text (`exact`). A row that a later step or a quota dropped
is not in it: nothing may be called a duplicate of a row that nobody has. It holds no signatures: they are made again
when it is read, about ten microseconds a row, so that a file never depends on how rows are compared.
"""

# Arrow's arrays are generic over types that only run time knows.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from distill.assets import find
from distill.errors import InputError
from distill.filters.reading import open_source
from distill.filters.text import Absent, ids, texts
from distill.io import atomic_path
from distill.recipe import EvalSet

__all__ = ["Forgotten", "other_rows", "read_index", "write_index"]

_KIND = b"distill.index"


class Forgotten:
    """Numbers of rows that a step kept and something behind it dropped."""

    def __init__(self) -> None:
        self._numbers: list[NDArray[np.int64]] = []

    def add(self, numbers: NDArray[np.int64]) -> None:
        """Further ones."""
        if len(numbers):
            self._numbers.append(numbers)

    def left(self, rows: Iterable[tuple[list[str], list[str]]], first: int) -> Iterator[tuple[list[str], list[str]]]:
        """(ids, texts) of rows numbered from `first` on, without the forgotten ones."""
        gone = np.sort(np.concatenate([*self._numbers, np.zeros(0, np.int64)]))
        for names, contents in rows:
            begin, end = np.searchsorted(gone, (first, first + len(names)))
            out = set((gone[begin:end] - first).tolist())
            first += len(names)
            if out:
                names = [name for place, name in enumerate(names) if place not in out]
                contents = [text for place, text in enumerate(contents) if place not in out]
            yield names, contents


def other_rows(sets: Sequence[EvalSet], fields: Sequence[str], folder: Path) -> Iterator[tuple[list[str], list[str]]]:
    """(ids, texts) of batches of the rows of other datasets. Ids begin with the name of the set.

    Raises:
        InputError: a file is missing or broken, or has no such column.
    """
    for other in sets:
        path = find("data", other.path, base=folder)
        name = other.name or path.stem

        def refuse(place: int, why: str, path: Path = path) -> None:
            raise InputError(why, path=path, line=place)

        source = open_source(path, refuse, text=None)
        for batch in source.batches():
            try:
                contents = texts(batch.table, (other.field,) if other.field else fields)
            except Absent as error:
                raise InputError(
                    str(error), path=path, field="against", hint="name the set's own column with `field`"
                ) from None
            if "id" in batch.table.column_names:
                names = ids(batch.table)
            else:
                names = [f"{source.unit}-{place}" for place in batch.places]
            yield [f"{name}:{each}" for each in names], contents


def read_index(path: Path, kind: str, fields: Sequence[str]) -> Iterator[tuple[list[str], list[str]]]:
    """(ids, texts or digests) of batches of an index file; nothing where there is none yet.

    Raises:
        InputError: the file is not an index of this kind of step and of these fields.
    """
    if not path.exists():
        return
    try:
        file = pq.ParquetFile(path, pre_buffer=False)
        found = (file.schema_arrow.metadata or {}).get(_KIND, b"").decode("utf-8", "replace")
        if found != _label(kind, fields):
            raise InputError(
                f"is no index of a {kind} step over {', '.join(fields) or 'whole rows'}"
                + (f" (it is of: {found})" if found else ""),
                path=path,
                field="index",
                hint="name another file, or remove this one",
            )
        for batch in file.iter_batches(4096, columns=["id", "text"]):
            names, contents = batch.column("id").to_pylist(), batch.column("text").to_pylist()
            yield [name or "" for name in names], [text or "" for text in contents]
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"cannot be read as an index: {error}", path=path, field="index") from None


def write_index(path: Path, kind: str, fields: Sequence[str], rows: Iterable[tuple[list[str], list[str]]]) -> None:
    """Replace the index file."""
    schema = pa.schema([("id", pa.string()), ("text", pa.large_string())], metadata={_KIND: _label(kind, fields)})
    with atomic_path(path) as temporary, pq.ParquetWriter(temporary, schema, compression="zstd") as writer:
        for names, contents in rows:
            writer.write_table(
                pa.Table.from_arrays(
                    [pa.array(names, pa.string()), pa.array(contents, pa.large_string())], schema=schema
                )
            )


def _label(kind: str, fields: Sequence[str]) -> str:
    return " ".join([kind, *fields])
