"""`StoreCare` for the file of a workspace."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import zlib
from collections.abc import Generator, Iterable, Iterator, Sequence
from pathlib import Path

from distill.errors import InputError
from distill.gateway.care import Entry, RunLine, Tally
from distill.gateway.schema import COLUMNS, INSERT, REQUEST, configure, create, explain
from distill.gateway.sqlite import lock_store, size_of
from distill.gateway.store import Record

__all__ = ["SqliteCare"]

_PAGE = 1_000
_QUALIFIED = ", ".join(f"a.{name.strip()}" for name in COLUMNS.split(","))
_ENTRIES = (
    f"SELECT a.id, a.key, {_QUALIFIED}, a.crc, r.wire FROM answers a LEFT JOIN requests r ON r.id = a.id"  # noqa: S608
    f" WHERE a.id > ? ORDER BY a.id LIMIT {_PAGE}"
)
_TALLIES = (
    "SELECT provider, model, run, count(*), sum(finish = ''), sum(input), sum(output), sum(cost_pico),"
    " sum(length(body)) FROM answers GROUP BY provider, model, run ORDER BY provider, model, run"
)
_LEDGER = (
    "SELECT run, answers, pico, input, output, lost_pico, lost_tokens, exposed_pico, exposed_tokens"
    " FROM runs ORDER BY run"
)
_ENTER = """
INSERT INTO runs (run, answers, pico, input, output, lost_pico, lost_tokens) VALUES (?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (run) DO UPDATE SET answers = max(answers, excluded.answers), pico = max(pico, excluded.pico),
    input = max(input, excluded.input), output = max(output, excluded.output),
    lost_pico = max(lost_pico, excluded.lost_pico), lost_tokens = max(lost_tokens, excluded.lost_tokens)"""
_BALANCE = """
INSERT INTO runs (run, answers, pico, input, output)
SELECT run, count(*), sum(cost_pico), sum(input), sum(output) FROM answers WHERE true GROUP BY run
ON CONFLICT (run) DO UPDATE SET answers = max(answers, excluded.answers), pico = max(pico, excluded.pico),
    input = max(input, excluded.input), output = max(output, excluded.output)"""


class SqliteCare:
    """See `StoreCare`. Use it in a `with` statement."""

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
        return str(self.path)

    def size(self) -> int:
        return size_of(self.path)

    def tallies(self) -> list[Tally]:
        with self._explained():
            return [Tally(*row) for row in self._connection.execute(_TALLIES)]

    def ledger(self) -> list[RunLine]:
        with self._explained():
            return [RunLine(*row) for row in self._connection.execute(_LEDGER)]

    def flaws(self) -> list[str]:
        try:
            found = [str(row[0]) for row in self._connection.execute("PRAGMA integrity_check(20)")]
        except sqlite3.Error as error:
            return [str(error)]
        return [] if found == ["ok"] else found

    def entries(self) -> Iterator[Entry]:
        last = 0
        while True:
            with self._explained():
                rows = self._connection.execute(_ENTRIES, (last,)).fetchall()
            for number, key, *values, crc, wire in rows:
                last = number
                record = Record(key.hex(), *values, request=wire or b"")
                yield Entry(record, zlib.crc32(record.body) == crc)
            if len(rows) < _PAGE:
                return

    def paid_by(self, run: str) -> Iterator[tuple[bytes, int, int]]:
        with self._explained():
            yield from self._connection.execute(
                "SELECT key, length(body), cost_pico FROM answers WHERE run = ?", (run,)
            )

    def remove(self, keys: Sequence[bytes]) -> int:
        with self._transaction() as connection:
            one = [(key,) for key in keys]
            connection.executemany("DELETE FROM requests WHERE id = (SELECT id FROM answers WHERE key = ?)", one)
            return connection.executemany("DELETE FROM answers WHERE key = ?", one).rowcount

    def absorb(self, records: Sequence[Record]) -> int:
        added = 0
        with self._transaction() as connection:
            for record in records:
                values = (bytes.fromhex(record.key), *record[1:-1], zlib.crc32(record.body))
                stored = connection.execute("INSERT OR IGNORE " + INSERT, values)
                if stored.rowcount:
                    added += 1
                    if record.request:
                        connection.execute(REQUEST, (stored.lastrowid, record.request))
        return added

    def enter(self, lines: Iterable[RunLine]) -> None:
        with self._transaction() as connection:
            for line in lines:
                lost = (line.lost_pico + line.exposed_pico, line.lost_tokens + line.exposed_tokens)
                connection.execute(_ENTER, (*line[:5], *lost))

    def balance(self) -> None:
        with self._transaction() as connection:
            connection.execute(_BALANCE)

    def compact(self) -> None:
        with self._explained():
            self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            self._connection.execute("VACUUM")
            self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._connection.close()
            os.close(self._lock)

    def __enter__(self) -> SqliteCare:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @contextlib.contextmanager
    def _explained(self) -> Generator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise explain(error, self.path) from None

    @contextlib.contextmanager
    def _transaction(self) -> Generator[sqlite3.Connection]:
        with self._explained():
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
                self._connection.execute("COMMIT")
            except BaseException:
                with contextlib.suppress(sqlite3.Error):
                    self._connection.rollback()
                raise
