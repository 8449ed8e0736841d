"""Tables appended to one Parquet file whose bytes depend on the rows alone.

Rows are cut into row groups of a fixed size, wherever the batches that brought them end: a run that was interrupted
and replayed writes the same bytes as one that was not. The file appears under its name when it is whole.
"""

# Arrow's arrays are generic over types that only run time knows.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportUnknownParameterType=false, reportMissingTypeArgument=false
from __future__ import annotations

import contextlib
import sys
from pathlib import Path
from types import TracebackType
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from distill.dataset.schema import ROW_SCHEMA
from distill.io import atomic_path

__all__ = ["ROW_GROUP", "RowWriter"]

ROW_GROUP = 4096
"""Rows of a row group: the most that is held in memory."""


class RowWriter:
    """Writes tables of one schema to one file.

        with RowWriter(path, KEPT_SCHEMA) as writer:
            writer.write(table)

    `close` (or a clean end of the `with` block) replaces what stood at `path`; `abort` (or an error) leaves it as it
    was. A file without rows still has its schema.
    """

    def __init__(self, path: Path, schema: pa.Schema = ROW_SCHEMA) -> None:
        self._path = path
        self._schema = schema
        self._files = contextlib.ExitStack()
        self._writer: Any = None
        self._pending: list[pa.Table] = []
        self._held = 0
        self.rows = 0

    def write(self, table: pa.Table) -> None:
        """Add rows; columns are taken by name, and the table may hold more of them.

        Raises:
            ValueError: a column is missing or of another type.
        """
        if not table.num_rows:
            return
        self._pending.append(table.select(self._schema.names).cast(self._schema))
        self._held += table.num_rows
        self.rows += table.num_rows
        while self._held >= ROW_GROUP:
            self._flush(ROW_GROUP)

    def close(self) -> None:
        """Write what is held and put the file in its place. Safe to call twice."""
        if self._writer is None:
            self._open()
        try:
            if self._held:
                self._flush(self._held)
        except BaseException:
            self._files.__exit__(*sys.exc_info())
            raise
        self._files.close()

    def abort(self) -> None:
        """Leave no trace. Safe to call at any time."""
        with contextlib.suppress(_Aborted):
            self._files.__exit__(_Aborted, _Aborted(), None)
        self._pending, self._held = [], 0

    def __enter__(self) -> RowWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:
            self.abort()

    def _open(self) -> None:
        temporary = self._files.enter_context(atomic_path(self._path))
        self._writer = self._files.enter_context(
            pq.ParquetWriter(temporary, self._schema, compression="zstd", compression_level=3)
        )

    def _flush(self, count: int) -> None:
        if self._writer is None:
            self._open()
        writer: Any = self._writer
        pending = pa.concat_tables(self._pending)
        # One contiguous chunk: page boundaries depend on the values, not on the batches they came in.
        writer.write_table(pending.slice(0, count).combine_chunks(), row_group_size=ROW_GROUP)
        rest = pending.slice(count)
        self._pending = [rest] if rest.num_rows else []
        self._held = rest.num_rows


class _Aborted(Exception):
    """Ends the open files the way an error does."""
