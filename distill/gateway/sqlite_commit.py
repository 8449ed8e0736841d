"""How a batch of answers is committed to SQLite: one `BEGIN IMMEDIATE` transaction on the writer's own connection."""

from __future__ import annotations

import contextlib
import sqlite3
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path

from distill.gateway.schema import COLUMNS, INSERT, REQUEST, explain
from distill.gateway.store import Record
from distill.gateway.writer import Expose, Lose, Put, Work, totals

__all__ = ["SqliteCommitter"]

_UPSERT = """
INSERT INTO runs (run, answers, pico, input, output) VALUES (?, ?, ?, ?, ?)
ON CONFLICT (run) DO UPDATE SET answers = answers + excluded.answers, pico = pico + excluded.pico,
    input = input + excluded.input, output = output + excluded.output"""
_LOSE = """
INSERT INTO runs (run, lost_pico, lost_tokens) VALUES (?, ?, ?)
ON CONFLICT (run) DO UPDATE SET lost_pico = lost_pico + excluded.lost_pico,
    lost_tokens = lost_tokens + excluded.lost_tokens"""
_EXPOSE = """
INSERT INTO runs (run, exposed_pico, exposed_tokens) VALUES (?, ?, ?)
ON CONFLICT (run) DO UPDATE SET exposed_pico = excluded.exposed_pico, exposed_tokens = excluded.exposed_tokens"""
_STANDING = f"SELECT {COLUMNS}, crc FROM answers WHERE key = ?"  # noqa: S608 - constant
_FORGET = "DELETE FROM requests WHERE id = (SELECT id FROM answers WHERE key = ?)"


class SqliteCommitter:
    """See `Committer`."""

    def __init__(self, connection: sqlite3.Connection, path: Path) -> None:
        self.connection = connection
        self._path = path
        self._seen_version = self._data_version()
        self._seen_id = self._last_id()

    def commit(self, work: Sequence[Work]) -> list[Record]:
        connection = self.connection
        standing: list[Record] = []
        try:
            connection.execute("BEGIN IMMEDIATE")
            for item in work:
                match item:
                    case Put():
                        standing.append(self._insert(item))
                    case Lose():
                        connection.execute(_LOSE, (item.run, item.amount.pico, item.amount.tokens))
                        if item.recovered:
                            connection.execute(_EXPOSE, (item.run, 0, 0))
                    case Expose():
                        connection.execute(_EXPOSE, (item.run, item.amount.pico, item.amount.tokens))
            for run, total in totals(work).items():
                connection.execute(_UPSERT, (run, *total))
            connection.execute("COMMIT")
        except sqlite3.Error as error:
            with contextlib.suppress(sqlite3.Error):
                connection.rollback()
            raise explain(error, self._path) from None
        return standing

    def news(self) -> Iterable[bytes]:
        try:
            version = self._data_version()
            if version == self._seen_version:
                return ()
            rows = self.connection.execute("SELECT key FROM answers WHERE id > ?", (self._seen_id,)).fetchall()
            self._seen_version, self._seen_id = version, self._last_id()
        except sqlite3.Error:
            return ()  # the next write will meet the same trouble and report it
        return [key for (key,) in rows]

    def close(self) -> None:
        with contextlib.suppress(sqlite3.Error):
            self.connection.close()

    def _insert(self, item: Put) -> Record:
        """Store one answer; returns the one that stands there afterwards."""
        record = item.record
        key = bytes.fromhex(record.key)
        values = (key, *record[1:-1], zlib.crc32(record.body))
        if not item.replace:
            stored = self.connection.execute("INSERT OR IGNORE " + INSERT, values)
            if stored.rowcount:
                self._note_request(stored.lastrowid, record)
                return record
            row = self.connection.execute(_STANDING, (key,)).fetchone()
            if zlib.crc32(row[4]) == row[-1]:
                return Record(record.key, *row[:-1])
        self.connection.execute(_FORGET, (key,))
        self._note_request(self.connection.execute("INSERT OR REPLACE " + INSERT, values).lastrowid, record)
        return record

    def _note_request(self, number: int | None, record: Record) -> None:
        if record.request:
            self.connection.execute(REQUEST, (number, record.request))

    def _data_version(self) -> int:
        return self.connection.execute("PRAGMA data_version").fetchone()[0]

    def _last_id(self) -> int:
        return self.connection.execute("SELECT coalesce(max(id), 0) FROM answers").fetchone()[0]
