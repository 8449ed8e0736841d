"""Rows from a JSONL, Parquet or CSV file as Arrow tables, a batch at a time.

A row is known by its place: the line in text formats, the row number in Parquet, both from 1. What is wrong with a
row is reported with its place, and the caller decides whether that ends the reading.
"""

# Arrow's arrays are generic over types that only run time knows.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportUnknownParameterType=false, reportMissingTypeArgument=false
from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from distill.errors import InputError
from distill.filters.json_lines import BATCH_ROWS as _BATCH
from distill.filters.json_lines import MAX_LINE, Batch, Layout, Over, layout, read

__all__ = ["MAX_LINE", "Batch", "Readers", "Source", "as_rewritten", "open_source"]

_COMPRESSED = {".gz": "gunzip", ".zst": "unzstd", ".bz2": "bunzip2", ".xz": "unxz", ".zip": "unzip"}
_MARKS = {
    b"\x1f\x8b": ("gzip", "give it the ending .gz and unpack it first with gunzip"),
    b"\x28\xb5\x2f\xfd": ("zstd", "give it the ending .zst and unpack it first with unzstd"),
    b"PAR1": ("Parquet", "give it the ending .parquet"),
    b"PK\x03\x04": ("zip or Excel", "unpack it first, or save the sheet as CSV in UTF-8"),
}
"""How files begin that are no text, whatever they are called."""

OnInvalid = Callable[[int, str], None]
"""Called with the place of a row that cannot be used, and why. It may raise."""


@dataclass(frozen=True, slots=True)
class Source:
    """A file whose columns are known and whose rows have not been read yet."""

    path: Path
    schema: pa.Schema
    batches: Callable[[], Iterator[Batch]]
    unit: str = "line"
    expected: int | None = None
    """Rows in it, where that is known."""


@dataclass(frozen=True, slots=True)
class Readers:
    """Who reads, and what is wanted."""

    over: Over = map
    """`map`, or the same by other processes."""
    originals: bool = True
    """Whether the parsed objects of JSON rows are wanted beside their columns."""
    once: Callable[[Callable[[], Any]], Any] = field(default=lambda make: make())
    """What gives the JSON value that a function makes, or that it made when this file was read before."""


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


def open_source(
    path: Path, on_invalid: OnInvalid, *, text: frozenset[str] | None = frozenset(), readers: Readers | None = None
) -> Source:
    """Open a file by its ending.

    Args:
        text: columns that hold text where rows disagree about it. None: all of them, as JSON; for files of which a
            column is read and no row is written.

    Raises:
        InputError: it cannot be read, its ending is not known, or it has no usable header.
    """
    kind = path.suffix.lower()
    if kind in _COMPRESSED:
        raise InputError("is compressed", path=path, hint=f"unpack it first: {_COMPRESSED[kind]} {path.name}")
    try:
        if kind not in (".parquet", ".pq"):
            _check_text(path)
        if kind in (".jsonl", ".ndjson", ".json"):
            return _jsonl(path, on_invalid, text, readers or Readers())
        if kind in (".parquet", ".pq"):
            return _parquet(path, on_invalid)
        if kind in (".csv", ".tsv"):
            return _csv(path, on_invalid, "\t" if kind == ".tsv" else ",")
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror or error}", path=path) from None
    raise InputError(f"unknown ending {kind or '(none)'}", path=path, hint="use .jsonl, .parquet, .csv or .tsv")


def _check_text(path: Path) -> None:
    with path.open("rb") as file:
        begin = file.read(4)
    if begin[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise InputError("the text is UTF-16", path=path, hint="save it as UTF-8")
    for mark, (what, way_out) in _MARKS.items():
        if begin.startswith(mark):
            raise InputError(f"{what} data, not text", path=path, hint=way_out)


# JSON Lines


def _jsonl(path: Path, on_invalid: OnInvalid, text: frozenset[str] | None, readers: Readers) -> Source:
    told = False

    def first() -> dict[str, Any]:
        nonlocal told
        told = True
        return layout(path, text, on_invalid, readers.over).as_json()

    found = Layout.of_json(readers.once(first))
    if not told:
        found.tell(found.bad, on_invalid)
    found.tell(found.unfit, on_invalid)
    batches = lambda: read(path, found, readers.over, originals=readers.originals)  # noqa: E731
    return Source(path, found.schema, batches, expected=found.rows)


# Parquet


def _parquet(path: Path, on_invalid: OnInvalid) -> Source:
    try:
        facts = pq.read_metadata(path)
        schema = facts.schema.to_arrow_schema()
    except pa.ArrowInvalid as error:
        raise InputError(f"not a Parquet file: {_first_line(error)}", path=path) from None
    _unique(schema.names, path, None)
    schema = pa.schema([field.with_type(_without_views(field.type)) for field in schema])

    def batches() -> Iterator[Batch]:
        place = 1
        try:
            with pq.ParquetFile(path, pre_buffer=False) as file:
                for batch in file.iter_batches(batch_size=_BATCH):
                    table = pa.Table.from_batches([batch]).replace_schema_metadata()
                    if table.schema != schema:
                        table = table.cast(schema)
                    yield _readable(Batch(table, list(range(place, place + table.num_rows))), on_invalid)
                    place += table.num_rows
        except (pa.ArrowInvalid, OSError) as error:
            raise InputError(f"damaged after row {place - 1}: {_first_line(error)}", path=path) from None

    return Source(path, schema, batches, "row", facts.num_rows)


def _without_views(kind: pa.DataType) -> pa.DataType:
    """The type with plain text and plain lists for views of them, which hardly any function takes."""
    if kind == pa.string_view():
        return pa.large_string()
    if kind == pa.binary_view():
        return pa.large_binary()
    if pa.types.is_struct(kind):
        return pa.struct([field.with_type(_without_views(field.type)) for field in kind])
    if pa.types.is_map(kind):
        return pa.map_(_without_views(kind.key_type), _without_views(kind.item_type))
    if pa.types.is_list(kind):
        return pa.list_(kind.value_field.with_type(_without_views(kind.value_type)))
    if pa.types.is_large_list(kind):
        return pa.large_list(kind.value_field.with_type(_without_views(kind.value_type)))
    return kind


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


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0]
