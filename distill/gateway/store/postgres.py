"""The answer store in PostgreSQL: one database for the runs of a team or of a cluster's machines.

The guarantees are those of `SqliteStore`. An answer is on the server's disk before anybody sees it (one connection
commits, in groups, with `synchronous_commit` on); the first answer to a question wins, whoever asked; money is written
in the same transactions. Reads are lookups by key on the caller's thread, so the filter in memory and reading ahead
matter more here: each spares a round trip.

Run directories and their locks stay where they are: the server holds answers and money, no runs.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from distill.gateway.store.known import KnownKeys
from distill.gateway.store.postgres_commit import PostgresCommitter
from distill.gateway.store.postgres_schema import POSTGRES, Address, connect, create, explain
from distill.gateway.store.sql_store import SqlStore
from distill.gateway.store.writer import Writer

if TYPE_CHECKING:
    import psycopg

__all__ = ["SIZE", "TABLES", "PostgresStore"]

SIZE = "SELECT sum(pg_total_relation_size(t)) FROM unnest(%s::regclass[]) AS t"
TABLES = ["distill_answers", "distill_requests", "distill_runs"]


class PostgresStore(SqlStore):
    """See `AnswerStore`. Open it with `open`; close it, or use it in a `with` statement."""

    def __init__(self, address: Address, reader: psycopg.Connection[Any], writer: Writer, known: KnownKeys) -> None:
        super().__init__(POSTGRES, writer, known)
        self._address = address
        self._reader = reader

    @classmethod
    def open(cls, url: str) -> PostgresStore:
        """Open the store at `url`, and make its tables where there are none.

        Raises:
            InputError: the address is none, or the driver is not installed.
            RunError: the server cannot be reached or refuses.
        """
        address = Address.parse(url)
        writing = connect(address, name="writer")
        reader: psycopg.Connection[Any] | None = None
        try:
            create(writing, address)
            reader = connect(address, name="reader")
            committer = PostgresCommitter(writing, address)  # what is stored from now on is news
            known = _known(reader, address)
            return cls(address, reader, Writer(committer, known), known)
        except BaseException:
            for connection in (writing, reader):
                if connection is not None:
                    with contextlib.suppress(Exception):
                        connection.close()
            raise

    @property
    def where(self) -> str:
        """The address, for people: without the password."""
        return self._address.shown

    def size(self) -> int:
        """Bytes of the tables and their indexes."""
        return int(self._read(SIZE, (TABLES,))[0][0] or 0)

    def _stop_reading(self) -> None:
        with contextlib.suppress(Exception):
            self._reader.close()

    def _read(self, query: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Every row of an answer of the server; a connection that broke since is made anew, once."""
        import psycopg

        for attempt in (1, 2):
            try:
                if self._reader.closed:
                    self._reader = connect(self._address, name="reader")
                return self._reader.execute(query.encode(), parameters, binary=True).fetchall()
            except psycopg.OperationalError as error:
                if attempt == 2 or not self._reader.closed:
                    raise explain(error, self._address) from None
            except psycopg.Error as error:
                raise explain(error, self._address) from None
        return []


def _known(connection: psycopg.Connection[Any], address: Address) -> KnownKeys:
    """Which keys are there, read a piece at a time."""
    import psycopg

    known = KnownKeys()
    try:
        with connection.transaction(), connection.cursor("keys", binary=True) as cursor:
            cursor.execute("SELECT key FROM distill_answers")
            while rows := cursor.fetchmany(50_000):
                known.add_all(key for (key,) in rows)
    except psycopg.Error as error:
        raise explain(error, address) from None
    return known
