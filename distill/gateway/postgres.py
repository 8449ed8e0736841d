"""The answer store in PostgreSQL: one database for the runs of a team or of a cluster's machines.

The guarantees are those of `SqliteStore`. An answer is on the server's disk before anybody sees it (one connection
commits, in groups, with `synchronous_commit` on); the first answer to a question wins, whoever asked; money is written
in the same transactions. Reads are lookups by key on the caller's thread, so the filter in memory and reading ahead
matter more here: each spares a round trip.

Run directories and their locks stay where they are: the server holds answers and money, no runs.
"""

from __future__ import annotations

import contextlib
import zlib
from collections.abc import Sequence
from decimal import Decimal
from typing import TYPE_CHECKING, Any, LiteralString

from distill.gateway.ahead import AHEAD, ReadAhead
from distill.gateway.budget import Amount
from distill.gateway.known import KnownKeys
from distill.gateway.money import usd
from distill.gateway.postgres_commit import PostgresCommitter
from distill.gateway.postgres_schema import COLUMNS, Address, connect, create, explain
from distill.gateway.store import Record, Spent, StoreStats
from distill.gateway.writer import Writer

if TYPE_CHECKING:
    import psycopg

__all__ = ["SIZE", "TABLES", "PostgresStore"]

_SELECT = f"SELECT {COLUMNS}, crc, id FROM distill_answers WHERE key = %s".encode()  # noqa: S608 - constant
_NEXT = f"SELECT id, key, {COLUMNS}, crc FROM distill_answers WHERE id > %s ORDER BY id LIMIT {AHEAD}".encode()  # noqa: S608
_MODELS = (
    "SELECT provider || '/' || model, count(*), count(*) FILTER (WHERE finish = '')"
    " FROM distill_answers GROUP BY 1 ORDER BY 1"
)
_USED = (
    "SELECT floor(created / 600) * 600, count(*), sum(input + output) FROM distill_answers"
    " WHERE created >= %s AND provider = %s AND model = %s GROUP BY 1 ORDER BY 1"
)
_TOTALS = "SELECT coalesce(sum(pico), 0), coalesce(sum(input + output), 0) FROM distill_runs"
SIZE = "SELECT sum(pg_total_relation_size(t)) FROM unnest(%s::regclass[]) AS t"
TABLES = ["distill_answers", "distill_requests", "distill_runs"]


class PostgresStore:
    """See `AnswerStore`. Open it with `open`; close it, or use it in a `with` statement."""

    def __init__(self, address: Address, reader: psycopg.Connection[Any], writer: Writer, known: KnownKeys) -> None:
        self._address = address
        self._reader = reader
        self._writer = writer
        self._known = known
        self._closed = False
        self._ahead = ReadAhead()

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

    def get(self, key: str) -> Record | None:
        """The answer, or None."""
        if not self._known.maybe(key):
            return None
        wanted = bytes.fromhex(key)
        row = self._ahead.take(wanted)
        if row is None:
            found = self._read(_SELECT, (wanted,))
            if not found:
                return None
            row, place = found[0][:-1], found[0][-1]
            if self._ahead.follows(place):
                rows = self._read(_NEXT, (place,))
                self._ahead.hold((row[1:] for row in rows), rows[-1][0] if rows else place)
        return Record(key, *row[:-1]) if zlib.crc32(row[4]) == row[-1] else None

    async def put(self, record: Record, *, replace: bool = False) -> Record:
        """Returns once the answer is on the server's disk."""
        self._ahead.take(bytes.fromhex(record.key))  # it may be replaced
        return await self._writer.put(record, replace=replace)

    def lose(self, run: str, amount: Amount) -> None:
        """Note what a call without an answer may have cost."""
        self._writer.lose(run, amount)

    async def expose(self, run: str, amount: Amount) -> None:
        """Returns once it is on disk what calls under way may cost."""
        await self._writer.expose(run, amount)

    def relax(self, run: str, amount: Amount) -> None:
        """Lower what `expose` has set."""
        self._writer.relax(run, amount)

    def recover(self, run: str) -> Amount:
        """What an earlier session of the run left exposed is lost from now on."""
        self._writer.drain()
        row = self._read("SELECT exposed_pico, exposed_tokens FROM distill_runs WHERE run = %s", (run,))
        amount = Amount(*row[0]) if row else Amount()
        if amount != Amount():
            self._writer.lose(run, amount, recovered=True)
            self._writer.drain()
        return amount

    def spent(self, run: str) -> Spent:
        """What the run paid for answers."""
        paid, _ = self.amounts(run)
        return Spent(paid.usd, paid.tokens)

    def amounts(self, run: str) -> tuple[Amount, Amount]:
        """What the run paid for answers, and what lost calls may have cost."""
        found = self._read(
            "SELECT pico, input + output, lost_pico, lost_tokens FROM distill_runs WHERE run = %s", (run,)
        )
        return (Amount(*found[0][:2]), Amount(*found[0][2:])) if found else (Amount(), Amount())

    def used_since(self, provider: str, model: str, since: float) -> list[tuple[float, int, int]]:
        """What a model has answered from Unix time `since` on, in slices of ten minutes."""
        found = self._read(_USED, (since, provider, model))
        return [(float(begins), count, int(tokens)) for begins, count, tokens in found]

    def stats(self) -> StoreStats:
        """Counts and sums over all runs."""
        models = self._read(_MODELS)
        ((pico, tokens),) = self._read(_TOTALS)
        return StoreStats(
            answers=sum(count for _, count, _ in models),
            refusals=sum(refused for _, _, refused in models),
            bytes=self.size(),
            cost=usd(int(pico)) if pico else Decimal(0),
            tokens=int(tokens),
            models={name: count for name, count, _ in models},
        )

    def size(self) -> int:
        """Bytes of the tables and their indexes."""
        return int(self._read(SIZE, (TABLES,))[0][0] or 0)

    @property
    def unsaved(self) -> int:
        """Answers that still wait for the server."""
        return self._writer.unsaved

    async def flush(self, timeout: float) -> int:  # noqa: ASYNC109 - part of the store's contract
        """Wait until everything is on disk; returns the number of answers that are not."""
        return await self._writer.flush(timeout)

    def close(self) -> None:
        """Write what is left and let go; safe to call twice."""
        if self._closed:
            return
        self._closed = True
        with contextlib.suppress(Exception):
            self._reader.close()
        self._writer.close()

    def __enter__(self) -> PostgresStore:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _read(self, query: LiteralString | bytes, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Every row of an answer of the server; a connection that broke since is made anew, once."""
        import psycopg

        for attempt in (1, 2):
            try:
                if self._reader.closed:
                    self._reader = connect(self._address, name="reader")
                return self._reader.execute(query, parameters, binary=True).fetchall()
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
