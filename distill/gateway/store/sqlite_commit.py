"""How a batch of answers is committed to SQLite: one `BEGIN IMMEDIATE` transaction on the writer's own connection.

Many rows go into one statement, and there are few statements. Python's `sqlite3` lets go of the interpreter's lock
twice for each, and a thread that asks for it back waits until a busy event loop's turn is over: row by row, the answers
of a burst stood in memory for that many turns, and a kill would have lost them.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from itertools import chain
from pathlib import Path
from typing import Any

from distill.gateway.store.base import Record
from distill.gateway.store.commit import book, settle
from distill.gateway.store.dialect import COLUMNS, record_of, values_of
from distill.gateway.store.sqlite_schema import SQLITE, explain
from distill.gateway.store.writer import Work

__all__ = ["SqliteCommitter", "SqliteRows"]

_ROWS, _BYTES = 50, 1 << 20
"""Most rows, and bytes of bodies, of one statement: SQLite takes 999 parameters everywhere, and a statement that is
kept for the next time keeps what it was given."""
_INSERT = f"INSERT OR IGNORE INTO answers (id, key, {COLUMNS}, crc) VALUES "  # noqa: S608 - constant
_REQUESTS = "INSERT OR REPLACE INTO requests (id, wire) VALUES "
_STANDING = f"SELECT key, {COLUMNS}, crc FROM answers WHERE key IN "  # noqa: S608 - constant
_WIDTH = 17
"""Columns of an answer."""


class SqliteCommitter:
    """See `Committer`."""

    def __init__(self, connection: sqlite3.Connection, path: Path) -> None:
        self.connection = connection
        self._rows = SqliteRows(connection)
        self._path = path

    def commit(self, work: Sequence[Work]) -> list[Record]:
        connection, end = self.connection, self._rows.end
        try:
            connection.execute("BEGIN IMMEDIATE")
            standing = settle(self._rows, work)
            book(connection.execute, SQLITE, work)
            connection.execute("COMMIT")
        except sqlite3.Error as error:
            with contextlib.suppress(sqlite3.Error):
                connection.rollback()
            self._rows.end = end
            raise explain(error, self._path) from None
        return standing

    def news(self) -> Iterable[bytes]:
        found, self._rows.strange = self._rows.strange, []
        return found

    def close(self) -> None:
        with contextlib.suppress(sqlite3.Error):
            self.connection.close()


class SqliteRows:
    """See `Rows`."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self.end = self.last()
        """The highest number that was there when it last looked, or that it has given since."""
        self.strange: list[bytes] = []
        """Keys of answers that others have stored since."""

    def last(self) -> int:
        """The highest number of an answer."""
        return self._connection.execute("SELECT coalesce(max(id), 0) FROM answers").fetchone()[0]

    def insert(self, records: Sequence[Record]) -> set[bytes]:
        stored: dict[bytes, int] = {}
        there = last = self.last() if records else self.end
        if there > self.end:
            found = self._connection.execute("SELECT key FROM answers WHERE id > ?", (self.end,))
            self.strange += [key for (key,) in found]
        for piece in _pieces(records):
            # Nobody else writes during this transaction, so the numbers can be given here.
            rows: list[tuple[Any, ...]] = [(last + place, *values_of(record)) for place, record in enumerate(piece, 1)]
            first, last = last + 1, last + len(rows)
            done = self._connection.execute(_INSERT + _marks(len(rows), _WIDTH), tuple(chain.from_iterable(rows)))
            new: dict[bytes, int]
            if done.rowcount == len(rows):
                new = {row[1]: row[0] for row in rows}
            else:
                found = self._connection.execute("SELECT key, id FROM answers WHERE id BETWEEN ? AND ?", (first, last))
                new = dict(found)
            stored |= new
            asked = [(row[1], record.request) for row, record in zip(rows, piece, strict=True) if record.request]
            pairs = [(new[key], request) for key, request in asked if key in new]
            if pairs:
                self._connection.execute(_REQUESTS + _marks(len(pairs), 2), tuple(chain.from_iterable(pairs)))
        self.end = max(stored.values(), default=there)
        return set(stored)

    def standing(self, keys: Sequence[bytes]) -> dict[bytes, Record | None]:
        found: dict[bytes, Record | None] = {}
        for start in range(0, len(keys), _ROWS):
            some = keys[start : start + _ROWS]
            for key, *row in self._connection.execute(_STANDING + _marks(1, len(some)), some):
                found[key] = record_of(key.hex(), row)
        return found

    def remove(self, keys: Sequence[bytes]) -> int:
        one = [(key,) for key in keys]
        self._connection.executemany("DELETE FROM requests WHERE id = (SELECT id FROM answers WHERE key = ?)", one)
        return self._connection.executemany("DELETE FROM answers WHERE key = ?", one).rowcount


def _pieces(records: Sequence[Record]) -> Iterator[list[Record]]:
    """What fits into one statement."""
    piece: list[Record] = []
    size = 0
    for record in records:
        if piece and (len(piece) == _ROWS or size + len(record.body) > _BYTES):
            yield piece
            piece, size = [], 0
        piece.append(record)
        size += len(record.body)
    if piece:
        yield piece


@cache
def _marks(rows: int, columns: int) -> str:
    return ", ".join([f"({', '.join('?' * columns)})"] * rows)
