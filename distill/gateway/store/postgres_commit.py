"""How a batch of answers is committed to PostgreSQL: one transaction, whole columns at a time.

A connection that breaks while a commit is under way leaves open whether it happened. The transaction's number is kept,
and the server is asked for its fate (`pg_xact_status`) before the same work is brought again: answers would not be
stored twice anyway, but their money would be counted twice.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from distill.gateway.store.base import Record
from distill.gateway.store.commit import book, settle
from distill.gateway.store.dialect import COLUMNS, record_of, values_of
from distill.gateway.store.postgres_schema import LOCK, POSTGRES, Address, connect, explain, spoken
from distill.gateway.store.writer import Put, Work

if TYPE_CHECKING:
    import psycopg

__all__ = ["PostgresCommitter", "PostgresRows"]

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
                book(spoken(connection), POSTGRES, [item for item in work if id(item) not in done])
            number = named.fetchall()[0][0]
            records = settle(PostgresRows(connection), work)
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


class PostgresRows:
    """See `Rows`."""

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        self._connection = connection

    def insert(self, records: Sequence[Record]) -> set[bytes]:
        if not records:
            return set()
        rows = [values_of(record) for record in records]
        columns = [list(column) for column in zip(*rows, strict=True)]
        stored: dict[bytes, int] = dict(self._connection.execute(_INSERT, columns, binary=True).fetchall())
        asked = [(stored.get(row[0]), record.request) for row, record in zip(rows, records, strict=True)]
        asked = [(number, request) for number, request in asked if number is not None and request]
        if asked:
            self._connection.execute(_REQUESTS, [list(column) for column in zip(*asked, strict=True)], binary=True)
        return set(stored)

    def standing(self, keys: Sequence[bytes]) -> dict[bytes, Record | None]:
        found = self._connection.execute(_STANDING, (list(keys),), binary=True).fetchall()
        return {key: record_of(key.hex(), row) for key, *row in found}

    def remove(self, keys: Sequence[bytes]) -> int:
        return self._connection.execute("DELETE FROM distill_answers WHERE key = ANY(%s)", (list(keys),)).rowcount


def _last(connection: psycopg.Connection[Any]) -> int:
    row = connection.execute("SELECT coalesce(max(id), 0) FROM distill_answers").fetchone()
    return int(row[0]) if row else 0
