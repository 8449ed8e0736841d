"""Rows of anybody's file as Arrow batches: JSONL, Parquet or CSV, memory bounded by the batch.

Every row has a place: the line in a JSONL or CSV file, the row number in Parquet, both from 1. What is wrong with a
row is reported with its place, and the caller decides whether that ends the reading.

JSONL is read twice: the first pass finds the type of every column and every line that does not fit, so that the
second can write columns whose type never changes midway. Where lines do not fit together, those that most others
agree with stay.
"""

# Arrow's arrays are generic over types that only run time knows.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportUnknownParameterType=false, reportMissingTypeArgument=false
from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from distill.errors import InputError
from distill.filters.kinds import Conflict, Kind, arrow_type, column, common, kind_of
from distill.io import loads

__all__ = ["MAX_LINE", "Batch", "Source", "as_rewritten", "open_source"]

MAX_LINE = 16 << 20
"""Bytes of the longest line that is read. A longer one is reported, and skipped without being held."""

_BATCH = 1024
_BATCH_BYTES = 8 << 20

OnInvalid = Callable[[int, str], None]
"""Called with the place of a row that cannot be used, and why. It may raise."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Rows in file order. `originals` are the parsed objects of JSON rows: a column layout adds nulls for absent keys,
    these do not."""

    table: pa.Table
    places: list[int]
    originals: list[dict[str, Any]] | None = None


@dataclass(frozen=True, slots=True)
class Source:
    """A file whose columns are known and whose rows have not been read yet."""

    path: Path
    schema: pa.Schema
    batches: Callable[[], Iterator[Batch]]
    unit: str = "line"


def as_rewritten(originals: list[dict[str, Any]] | None, columns: Mapping[str, Any]) -> list[dict[str, Any]] | None:
    """The objects of JSON rows with what filters rewrote; keys that were absent stay absent."""
    if originals is None or not columns:
        return originals
    values = {name: column.to_pylist() for name, column in columns.items()}
    return [
        {name: _overlaid(value, values[name][row]) if name in values else value for name, value in original.items()}
        for row, original in enumerate(originals)
    ]


def _overlaid(old: Any, new: Any) -> Any:
    """`new` in the shape of `old`: a column's objects have every key that any row has."""
    if isinstance(old, dict):
        new = orjson.loads(new) if isinstance(new, str) else new  # objects that Parquet cannot hold are text there
        return {key: _overlaid(value, new[key]) for key, value in old.items()}  # pyright: ignore[reportUnknownVariableType]
    if isinstance(old, list):
        new = orjson.loads(new) if isinstance(new, str) else new
        return [_overlaid(before, after) for before, after in zip(old, new, strict=True)]  # pyright: ignore[reportUnknownVariableType]
    return new if isinstance(old, str) else old


def open_source(path: Path, on_invalid: OnInvalid, *, text: frozenset[str] = frozenset()) -> Source:
    """Open a file by its ending.

    Args:
        text: columns that hold text where rows disagree about it.

    Raises:
        InputError: it cannot be read, its ending is not known, or it has no usable header.
    """
    kind = path.suffix.lower()
    try:
        with path.open("rb") as file:
            if file.read(2) in (b"\xff\xfe", b"\xfe\xff"):
                raise InputError("the text is UTF-16", path=path, hint="save it as UTF-8")
        if kind in (".jsonl", ".ndjson", ".json"):
            return _jsonl(path, on_invalid, text)
        if kind in (".parquet", ".pq"):
            return _parquet(path, on_invalid)
        if kind in (".csv", ".tsv"):
            return _csv(path, on_invalid, "\t" if kind == ".tsv" else ",")
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror or error}", path=path) from None
    raise InputError(f"unknown ending {kind or '(none)'}", path=path, hint="use .jsonl, .parquet, .csv or .tsv")


# JSON Lines


def _jsonl(path: Path, on_invalid: OnInvalid, text: frozenset[str]) -> Source:
    invalid: set[int] = set()

    def refuse(place: int, why: str) -> None:
        invalid.add(place)
        on_invalid(place, why)

    seen: Counter[Kind] = Counter()
    with path.open("rb") as file:
        for place, row in _objects(file, refuse):
            try:
                seen[kind_of(row)] += 1
            except (Conflict, RecursionError) as error:
                refuse(place, str(error) or "nested too deeply")
    kinds, unfit = common(seen, text)
    if unfit:
        with path.open("rb") as file:
            for place, row in _objects(file, lambda _place, _why: None):
                if place not in invalid and (why := unfit.get(kind_of(row))) is not None:
                    refuse(place, why)

    schema = pa.schema([(name, arrow_type(kind)) for name, kind in kinds.items()])

    def batches() -> Iterator[Batch]:
        places: list[int] = []
        rows: list[dict[str, Any]] = []
        begin = 0
        with path.open("rb") as file:
            for place, line in _lines(file, lambda _place, _why: None):
                if place in invalid:
                    continue
                row = orjson.loads(line)  # the first pass was strict
                places.append(place)
                rows.append(row)
                if len(rows) >= _BATCH or file.tell() - begin >= _BATCH_BYTES:
                    yield _json_batch(rows, places, kinds, schema)
                    places, rows, begin = [], [], file.tell()
        if rows:
            yield _json_batch(rows, places, kinds, schema)

    return Source(path, schema, batches)


def _json_batch(rows: list[dict[str, Any]], places: list[int], kinds: dict[str, Kind], schema: pa.Schema) -> Batch:
    arrays = [column([row.get(name) for row in rows], kind) for name, kind in kinds.items()]
    table = pa.Table.from_arrays(arrays, schema=schema) if arrays else _rows_without_columns(len(rows))
    return Batch(table, places, rows)


def _objects(file: BinaryIO, refuse: OnInvalid) -> Iterator[tuple[int, dict[str, Any]]]:
    for place, line in _lines(file, refuse):
        try:
            value = loads(line)
        except UnicodeDecodeError as error:
            refuse(place, f"not UTF-8 (byte {error.start + 1} of the line)")
        except RecursionError:
            refuse(place, "nested too deeply")
        except ValueError as error:
            array = place == 1 and line.lstrip().startswith(b"[")
            refuse(place, "a JSON array, not one object a line" if array else f"not valid JSON: {error}")
        else:
            if isinstance(value, dict):
                yield place, value  # pyright: ignore[reportUnknownVariableType]
            else:
                array = isinstance(value, list) and place == 1
                refuse(place, "a JSON array, not one object a line" if array else "not a JSON object")


def _lines(file: BinaryIO, refuse: OnInvalid) -> Iterator[tuple[int, bytes]]:
    """Lines that are not blank, none of them longer than `MAX_LINE`."""
    place = 0
    while line := file.readline(MAX_LINE + 1):
        place += 1
        if place == 1:
            line = line.removeprefix(b"\xef\xbb\xbf")
        if len(line) > MAX_LINE and not line.endswith(b"\n"):
            length = len(line)
            while rest := file.readline(MAX_LINE):
                length += len(rest)
                if rest.endswith(b"\n"):
                    break
            refuse(place, f"{length / 1e6:.0f} MB in one line, at most {MAX_LINE >> 20} MiB can be read")
        elif line.strip():
            yield place, line


# Parquet


def _parquet(path: Path, on_invalid: OnInvalid) -> Source:
    try:
        schema = pq.read_schema(path)
    except pa.ArrowInvalid as error:
        raise InputError(f"not a Parquet file: {_first_line(error)}", path=path) from None
    _unique(schema.names, path, None)
    schema = schema.remove_metadata()

    def batches() -> Iterator[Batch]:
        place = 1
        try:
            with pq.ParquetFile(path, pre_buffer=False) as file:
                for batch in file.iter_batches(batch_size=_BATCH):
                    table = pa.Table.from_batches([batch]).replace_schema_metadata()
                    yield _readable(Batch(table, list(range(place, place + table.num_rows))), on_invalid)
                    place += table.num_rows
        except (pa.ArrowInvalid, OSError) as error:
            raise InputError(f"damaged after row {place - 1}: {_first_line(error)}", path=path) from None

    return Source(path, schema, batches, "row")


def _readable(batch: Batch, refuse: OnInvalid) -> Batch:
    """The rows whose values are what their types say; text that is not UTF-8 shows only when it is looked at."""
    try:
        batch.table.validate(full=True)
    except pa.ArrowInvalid:
        good: list[int] = []
        for row, place in enumerate(batch.places):
            try:
                batch.table.slice(row, 1).validate(full=True)
            except pa.ArrowInvalid as error:
                refuse(place, "not UTF-8" if "UTF8" in str(error) else _first_line(error))
            else:
                good.append(row)
        pieces = [batch.table.slice(row, 1) for row in good]
        table = pa.concat_tables(pieces) if pieces else batch.table.schema.empty_table()
        return Batch(table.combine_chunks(), [batch.places[row] for row in good])
    return batch


# CSV


def _csv(path: Path, on_invalid: OnInvalid, delimiter: str) -> Source:
    # All columns are text: what looks like a number in the first rows may not be one in the last.
    csv.field_size_limit(MAX_LINE)
    with _csv_text(path) as file:
        header = next(_csv_rows(file, delimiter, _refuse_header(path)), (1, None))[1]
    if header is None:
        schema = pa.schema([])
        return Source(path, schema, lambda: iter(()))
    _unique(header, path, 1)
    schema = pa.schema([(name, pa.string()) for name in header])

    def batches() -> Iterator[Batch]:
        places: list[int] = []
        rows: list[list[str]] = []
        with _csv_text(path) as file:
            lines = _csv_rows(file, delimiter, on_invalid)
            next(lines)
            for place, row in lines:
                if len(row) != len(header):
                    on_invalid(place, f"{len(row)} fields, the header has {len(header)}")
                    continue
                places.append(place)
                rows.append(row)
                if len(rows) >= _BATCH:
                    yield _csv_batch(rows, places, schema)
                    places, rows = [], []
        if rows:
            yield _csv_batch(rows, places, schema)

    return Source(path, schema, batches)


def _refuse_header(path: Path) -> OnInvalid:
    def refuse(place: int, why: str) -> None:
        raise InputError(f"the header is {why}", path=path, line=place)

    return refuse


def _csv_text(path: Path) -> io.TextIOWrapper:
    # Bytes that are not UTF-8 become lone surrogates, so that the row they stand in can be named.
    return path.open("r", encoding="utf-8-sig", errors="surrogateescape", newline="")


def _csv_rows(file: io.TextIOWrapper, delimiter: str, refuse: OnInvalid) -> Iterator[tuple[int, list[str]]]:
    reader = csv.reader(file, delimiter=delimiter, strict=True)
    while True:
        place = reader.line_num + 1
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            refuse(place, f"not valid CSV: {error}")
            continue
        if not row:
            continue
        try:
            "".join(row).encode("utf-8")
        except UnicodeEncodeError:
            refuse(place, "not UTF-8")
            continue
        yield place, row


def _csv_batch(rows: list[list[str]], places: list[int], schema: pa.Schema) -> Batch:
    arrays = [pa.array(values, pa.string()) for values in zip(*rows, strict=True)]
    return Batch(pa.Table.from_arrays(arrays, schema=schema), places)


def _unique(names: list[str], path: Path, line: int | None) -> None:
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise InputError(f"columns with the same name: {', '.join(twice)}", path=path, line=line)


def _rows_without_columns(count: int) -> pa.Table:
    return pa.table({"id": pa.nulls(count, pa.string())})


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0]
