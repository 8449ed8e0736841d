"""Files of kept and rejected rows: Parquet, or JSON Lines in which rows that came as JSON go out as they came."""

# Arrow's arrays are generic over types that only run time knows.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportUnknownParameterType=false, reportMissingTypeArgument=false
from __future__ import annotations

import contextlib
from collections.abc import Generator
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any, Protocol

import orjson
import pyarrow as pa

from distill.dataset import RowWriter
from distill.errors import InputError
from distill.io import atomic_path

__all__ = ["Writer", "open_writer"]


class Writer(Protocol):
    def write(self, table: pa.Table, originals: list[dict[str, Any]] | None) -> None: ...


@dataclass(frozen=True, slots=True)
class _Parquet:
    writer: RowWriter

    def write(self, table: pa.Table, originals: list[dict[str, Any]] | None) -> None:
        self.writer.write(table)


@dataclass(frozen=True, slots=True)
class _Lines:
    """JSON Lines. Rows that came as JSON go out as they came: their absent keys stay absent."""

    file: Any
    path: Path
    added: list[str]
    """Columns that the input does not have."""

    def write(self, table: pa.Table, originals: list[dict[str, Any]] | None) -> None:
        if originals is None:
            rows = table.to_pylist(maps_as_pydicts="strict")
        else:
            rows = [{**row, **more} for row, more in zip(originals, table.select(self.added).to_pylist(), strict=True)]
            for row, id_ in zip(rows, table.column("id").to_pylist(), strict=True):
                row["id"] = id_ if row.get("id") is None else row["id"]
        for row in rows:
            try:
                self.file.write(orjson.dumps(row, default=_plain, option=orjson.OPT_APPEND_NEWLINE))
            except TypeError as error:
                raise InputError(f"cannot be written as JSON: {error}", path=self.path, hint="use Parquet") from None


@contextlib.contextmanager
def open_writer(path: Path, schema: pa.Schema, format: str, inputs: list[str]) -> Generator[Writer]:
    if format == "parquet":
        with RowWriter(path, schema) as writer:
            yield _Parquet(writer)
    else:
        with atomic_path(path) as temporary, temporary.open("wb") as file:
            yield _Lines(file, path, [name for name in schema.names if name not in inputs])
            file.flush()


def _plain(value: Any) -> Any:
    if isinstance(value, Decimal):
        return float(value)
    raise TypeError(f"{type(value).__name__} is not a JSON value")
