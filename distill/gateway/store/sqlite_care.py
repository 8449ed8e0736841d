"""`StoreCare` for the file of a workspace."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Generator, Iterable, Sequence
from pathlib import Path
from typing import Any

from distill.errors import InputError
from distill.gateway.store.base import Record
from distill.gateway.store.dialect import Execute
from distill.gateway.store.sql_care import SqlCare
from distill.gateway.store.sqlite import lock_store, size_of
from distill.gateway.store.sqlite_commit import SqliteRows
from distill.gateway.store.sqlite_schema import SQLITE, configure, create, explain

__all__ = ["SqliteCare"]


class SqliteCare(SqlCare):
    """See `StoreCare`. Use it in a `with` statement."""

    sql = SQLITE

    def __init__(self, path: Path, *, make: bool = False) -> None:
        """
        Args:
            make: an empty store where there is none.

        Raises:
            InputError: there is none.
            RunError: it cannot be opened.
        """
        if not make and not path.is_file():
            raise InputError("no answer store here", path=path, hint="A workspace has one after its first run.")
        self.path = path
        self._lock = lock_store(path)
        self._connection = sqlite3.connect(path, timeout=30, isolation_level=None)
        self._closed = False
        try:
            with self._explained():
                configure(self._connection)
                create(self._connection, path)
        except BaseException:
            self.close()
            raise

    @property
    def where(self) -> str:
        """The file, for people."""
        return str(self.path)

    def size(self) -> int:
        """Bytes of the file and its write-ahead log."""
        return size_of(self.path)

    def flaws(self) -> list[str]:
        """What SQLite finds wrong with the file."""
        try:
            found = [str(row[0]) for row in self._connection.execute("PRAGMA integrity_check(20)")]
        except sqlite3.Error as error:
            return [str(error)]
        return [] if found == ["ok"] else found

    def remove(self, keys: Sequence[bytes]) -> int:
        """Answers and what was asked."""
        with self._books():
            return SqliteRows(self._connection).remove(keys)

    def absorb(self, records: Sequence[Record]) -> int:
        """Store answers that are not there; returns how many."""
        with self._books():
            return len(SqliteRows(self._connection).insert(records))

    def compact(self) -> None:
        """Give the room of removed answers back."""
        with self._explained():
            self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            self._connection.execute("VACUUM")
            self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def close(self) -> None:
        """Safe to call twice."""
        if not self._closed:
            self._closed = True
            self._connection.close()
            os.close(self._lock)

    def _rows(self, query: str, parameters: Sequence[Any] = ()) -> Iterable[tuple[Any, ...]]:
        return self._connection.execute(query, parameters)

    @contextlib.contextmanager
    def _explained(self) -> Generator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise explain(error, self.path) from None

    @contextlib.contextmanager
    def _books(self) -> Generator[Execute]:
        with self._explained():
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection.execute
                self._connection.execute("COMMIT")
            except BaseException:
                with contextlib.suppress(sqlite3.Error):
                    self._connection.rollback()
                raise
