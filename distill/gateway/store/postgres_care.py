"""`StoreCare` for the tables of a server."""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Iterable, Sequence
from typing import Any

from distill.gateway.store.base import Record
from distill.gateway.store.dialect import Execute
from distill.gateway.store.postgres import SIZE, TABLES
from distill.gateway.store.postgres_commit import PostgresRows
from distill.gateway.store.postgres_schema import LOCK, POSTGRES, Address, connect, create, explain, spoken
from distill.gateway.store.sql_care import SqlCare

__all__ = ["PostgresCare"]


class PostgresCare(SqlCare):
    """See `StoreCare`. Use it in a `with` statement."""

    sql = POSTGRES

    def __init__(self, url: str) -> None:
        """
        Raises:
            InputError: the address is none, or the driver is not installed.
            RunError: the server cannot be reached or refuses.
        """
        self._address = Address.parse(url)
        self._connection = connect(self._address, name="answers")
        try:
            create(self._connection, self._address)
        except BaseException:
            self._connection.close()
            raise

    @property
    def where(self) -> str:
        """The address, for people: without the password."""
        return self._address.shown

    def size(self) -> int:
        """Bytes of the tables and their indexes."""
        with self._explained():
            return int(self._connection.execute(SIZE, (TABLES,)).fetchall()[0][0] or 0)

    def flaws(self) -> list[str]:
        """Nothing: the server checks its own pages."""
        return []

    def remove(self, keys: Sequence[bytes]) -> int:
        """Answers and what was asked."""
        with self._books():
            return PostgresRows(self._connection).remove(keys)

    def absorb(self, records: Sequence[Record]) -> int:
        """Store answers that are not there; returns how many."""
        with self._books():
            return len(PostgresRows(self._connection).insert(records))

    def compact(self) -> None:
        """Give the room of removed answers back."""
        with self._explained():
            self._connection.execute("VACUUM distill_answers, distill_requests")

    def close(self) -> None:
        """Safe to call twice."""
        with contextlib.suppress(Exception):
            self._connection.close()

    def _rows(self, query: str, parameters: Sequence[Any] = ()) -> Iterable[tuple[Any, ...]]:
        return self._connection.execute(query.encode(), parameters, binary=True).fetchall()

    @contextlib.contextmanager
    def _explained(self) -> Generator[None]:
        import psycopg

        try:
            yield
        except psycopg.Error as error:
            raise explain(error, self._address) from None

    @contextlib.contextmanager
    def _books(self) -> Generator[Execute]:
        with self._explained(), self._connection.transaction():
            self._connection.execute("SELECT pg_advisory_xact_lock(%s)", (LOCK,))
            yield spoken(self._connection)
