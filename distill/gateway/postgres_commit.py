"""How a batch of answers is committed to PostgreSQL: one transaction, whole columns at a time.

A connection that breaks while a commit is under way leaves open whether it happened. The transaction's number is kept,
and the server is asked for its fate (`pg_xact_status`) before the same work is brought again: answers would not be
stored twice anyway, but their money would be counted twice.
"""

from __future__ import annotations

import contextlib
import zlib
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from distill.gateway.postgres_schema import COLUMNS, LOCK, Address, connect, explain
from distill.gateway.store import Record
from distill.gateway.writer import Expose, Lose, Put, Work, totals

if TYPE_CHECKING:
    import psycopg

__all__ = ["PostgresCommitter", "insert", "standing"]

_TYPES = [
    *("bytea", "text", "text", "bigint", "integer", "bytea"),
    *("bigint", "bigint", "bigint", "bigint", "bigint", "bigint"),
    *("text", "text", "double precision", "bigint"),
]
"""Of the key, `COLUMNS` and the checksum."""

_INSERT = (
    f"INSERT INTO distill_answers (key, {COLUMNS}, crc) SELECT * FROM unnest("  # noqa: S608 - constant
    + ", ".join(f"%s::{kind}[]" for kind in _TYPES)
    + ") ON CONFLICT (key) DO NOTHING RETURNING key, id"
).encode()
_REQUESTS = (
    "INSERT INTO distill_requests (id, wire) SELECT * FROM unnest(%s::bigint[], %s::bytea[])"
    " ON CONFLICT (id) DO UPDATE SET wire = excluded.wire"
)
_STANDING = f"SELECT key, {COLUMNS}, crc FROM distill_answers WHERE key = ANY(%s)".encode()  # noqa: S608 - constant
_UPSERT = """
INSERT INTO distill_runs AS r (run, answers, pico, input, output) VALUES (%s, %s, %s, %s, %s)
ON CONFLICT (run) DO UPDATE SET answers = r.answers + excluded.answers, pico = r.pico + excluded.pico,
    input = r.input + excluded.input, output = r.output + excluded.output"""
_LOSE = """
INSERT INTO distill_runs AS r (run, lost_pico, lost_tokens) VALUES (%s, %s, %s)
ON CONFLICT (run) DO UPDATE SET lost_pico = r.lost_pico + excluded.lost_pico,
    lost_tokens = r.lost_tokens + excluded.lost_tokens"""
_EXPOSE = """
INSERT INTO distill_runs (run, exposed_pico, exposed_tokens) VALUES (%s, %s, %s)
ON CONFLICT (run) DO UPDATE SET exposed_pico = excluded.exposed_pico, exposed_tokens = excluded.exposed_tokens"""


class PostgresCommitter:
    """See `Committer`."""

    def __init__(self, connection: psycopg.Connection[Any], address: Address) -> None:
        self.connection = connection
        self._address = address
        self._doubt: tuple[str, frozenset[int]] | None = None
        self._news: list[bytes] = []
        self._seen = _last(connection)

    def commit(self, work: Sequence[Work]) -> list[Record]:
        import psycopg

        number = ""
        try:
            self._be_connected()
            done = self._settle_doubt()
            connection = self.connection
            with connection.pipeline():
                connection.execute("BEGIN")
                connection.execute("SELECT pg_advisory_xact_lock(%s)", (LOCK,))
                named = connection.execute("SELECT pg_current_xact_id()::text")
                for item in work:
                    if id(item) not in done:
                        _account(connection, item)
                for run, total in totals(item for item in work if id(item) not in done).items():
                    connection.execute(_UPSERT, (run, *total))
            number = named.fetchall()[0][0]
            records = _store(connection, [item for item in work if isinstance(item, Put)])
            fresh = connection.execute("SELECT key, id FROM distill_answers WHERE id > %s", (self._seen,)).fetchall()
            connection.execute("COMMIT")
        except psycopg.Error as error:
            if number and self.connection.closed:
                self._doubt = (number, frozenset(id(item) for item in work))
            with contextlib.suppress(psycopg.Error):
                self.connection.rollback()
            raise explain(error, self._address) from None
        self._doubt = None
        self._seen = max([self._seen, *(place for _, place in fresh)])
        own = {bytes.fromhex(item.record.key) for item in work if isinstance(item, Put)}
        self._news += [key for key, _ in fresh if key not in own]
        return records

    def news(self) -> Iterable[bytes]:
        found, self._news = self._news, []
        return found

    def close(self) -> None:
        with contextlib.suppress(Exception):
            self.connection.close()

    def _be_connected(self) -> None:
        if self.connection.closed:
            self.connection = connect(self._address, name="writer")

    def _settle_doubt(self) -> frozenset[int]:
        """Items that an earlier commit has stored after all."""
        if self._doubt is None:
            return frozenset()
        number, items = self._doubt
        # While the server still carries the old transaction out, its lock is held: wait for the end of it.
        self.connection.execute("SELECT pg_advisory_lock(%s)", (LOCK,))
        self.connection.execute("SELECT pg_advisory_unlock(%s)", (LOCK,))
        row = self.connection.execute("SELECT pg_xact_status(%s::text::xid8)", (number,)).fetchone()
        return items if row and row[0] == "committed" else frozenset()


def insert(connection: psycopg.Connection[Any], records: Sequence[Record]) -> set[bytes]:
    """Store those of `records` that have different keys and are not there yet; returns the keys that were stored."""
    if not records:
        return set()
    rows = [(bytes.fromhex(record.key), *record[1:-1], zlib.crc32(record.body)) for record in records]
    columns = [list(column) for column in zip(*rows, strict=True)]
    stored: dict[bytes, int] = dict(connection.execute(_INSERT, columns, binary=True).fetchall())
    asked = [(stored[row[0]], record.request) for row, record in zip(rows, records, strict=True) if row[0] in stored]
    asked = [(number, request) for number, request in asked if request]
    if asked:
        connection.execute(_REQUESTS, [list(column) for column in zip(*asked, strict=True)], binary=True)
    return set(stored)


def standing(connection: psycopg.Connection[Any], keys: Sequence[bytes]) -> dict[bytes, Record | None]:
    """The answers under `keys`; None where one is damaged."""
    found = connection.execute(_STANDING, (list(keys),), binary=True).fetchall()
    return {row[0]: Record(row[0].hex(), *row[1:-1]) if zlib.crc32(row[5]) == row[-1] else None for row in found}


def _store(connection: psycopg.Connection[Any], puts: Sequence[Put]) -> list[Record]:
    first: dict[bytes, Record] = {}
    over: dict[bytes, Record] = {}
    for put in puts:
        key = bytes.fromhex(put.record.key)
        if put.replace:
            over[key] = put.record
        else:
            first.setdefault(key, put.record)
    stored = insert(connection, list(first.values()))
    there = standing(connection, [key for key in first if key not in stored]) if len(stored) < len(first) else {}
    over = {key: first[key] for key, record in there.items() if record is None} | over
    if over:
        connection.execute("DELETE FROM distill_answers WHERE key = ANY(%s)", (list(over),))
        insert(connection, list(over.values()))
    results: list[Record] = []
    for put in puts:
        key = bytes.fromhex(put.record.key)
        kept = over.get(key) or there.get(key) or first[key]
        results.append(kept)
    return results


def _account(connection: psycopg.Connection[Any], item: Work) -> None:
    match item:
        case Lose():
            connection.execute(_LOSE, (item.run, item.amount.pico, item.amount.tokens))
            if item.recovered:
                connection.execute(_EXPOSE, (item.run, 0, 0))
        case Expose():
            connection.execute(_EXPOSE, (item.run, item.amount.pico, item.amount.tokens))
        case Put():
            pass


def _last(connection: psycopg.Connection[Any]) -> int:
    row = connection.execute("SELECT coalesce(max(id), 0) FROM distill_answers").fetchone()
    return int(row[0]) if row else 0
