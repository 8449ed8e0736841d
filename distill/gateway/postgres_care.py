"""`StoreCare` for the tables of a server."""

from __future__ import annotations

import contextlib
import zlib
from collections.abc import Generator, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from distill.gateway.care import Entry, RunLine, Tally
from distill.gateway.postgres import SIZE, TABLES
from distill.gateway.postgres_commit import insert
from distill.gateway.postgres_schema import COLUMNS, LOCK, Address, connect, create, explain
from distill.gateway.store import Record

if TYPE_CHECKING:
    import psycopg

__all__ = ["PostgresCare"]

_PAGE = 1_000
_QUALIFIED = ", ".join(f"a.{name.strip()}" for name in COLUMNS.split(","))
_ENTRIES = (
    f"SELECT a.id, a.key, {_QUALIFIED}, a.crc, r.wire FROM distill_answers a"  # noqa: S608 - constant
    f" LEFT JOIN distill_requests r ON r.id = a.id WHERE a.id > %s ORDER BY a.id LIMIT {_PAGE}"
).encode()
_TALLIES = (
    "SELECT provider, model, run, count(*), count(*) FILTER (WHERE finish = ''), sum(input)::bigint,"
    " sum(output)::bigint, sum(cost_pico)::bigint, sum(length(body))::bigint"
    " FROM distill_answers GROUP BY provider, model, run ORDER BY provider, model, run"
)
_LEDGER = (
    "SELECT run, answers, pico, input, output, lost_pico, lost_tokens, exposed_pico, exposed_tokens"
    " FROM distill_runs ORDER BY run"
)
_RAISE = """
ON CONFLICT (run) DO UPDATE SET answers = greatest(r.answers, excluded.answers), pico = greatest(r.pico, excluded.pico),
    input = greatest(r.input, excluded.input), output = greatest(r.output, excluded.output)"""
_ENTER = (
    "INSERT INTO distill_runs AS r (run, answers, pico, input, output, lost_pico, lost_tokens)"  # noqa: S608 - constant
    f" VALUES (%s, %s, %s, %s, %s, %s, %s) {_RAISE}, lost_pico = greatest(r.lost_pico, excluded.lost_pico),"
    " lost_tokens = greatest(r.lost_tokens, excluded.lost_tokens)"
).encode()
_BALANCE = (
    "INSERT INTO distill_runs AS r (run, answers, pico, input, output) SELECT run, count(*), sum(cost_pico)::bigint,"  # noqa: S608
    f" sum(input)::bigint, sum(output)::bigint FROM distill_answers GROUP BY run {_RAISE}"
).encode()


class PostgresCare:
    """See `StoreCare`. Use it in a `with` statement."""

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
        return self._address.shown

    def size(self) -> int:
        with self._explained():
            return int(self._connection.execute(SIZE, (TABLES,)).fetchall()[0][0] or 0)

    def tallies(self) -> list[Tally]:
        with self._explained():
            return [Tally(*row) for row in self._connection.execute(_TALLIES).fetchall()]

    def ledger(self) -> list[RunLine]:
        with self._explained():
            return [RunLine(*row) for row in self._connection.execute(_LEDGER).fetchall()]

    def flaws(self) -> list[str]:
        return []  # the server checks its own pages

    def entries(self) -> Iterator[Entry]:
        last = 0
        while True:
            with self._explained():
                rows = self._connection.execute(_ENTRIES, (last,), binary=True).fetchall()
            for number, key, *values, crc, wire in rows:
                last = number
                record = Record(key.hex(), *values, request=wire or b"")
                yield Entry(record, zlib.crc32(record.body) == crc)
            if len(rows) < _PAGE:
                return

    def paid_by(self, run: str) -> Iterator[tuple[bytes, int, int]]:
        with self._explained():
            query = "SELECT key, length(body), cost_pico FROM distill_answers WHERE run = %s"
            yield from self._connection.execute(query, (run,), binary=True).fetchall()

    def remove(self, keys: Sequence[bytes]) -> int:
        with self._transaction() as connection:
            return connection.execute("DELETE FROM distill_answers WHERE key = ANY(%s)", (list(keys),)).rowcount

    def absorb(self, records: Sequence[Record]) -> int:
        with self._transaction() as connection:
            return len(insert(connection, records))

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
            self._connection.execute("VACUUM distill_answers, distill_requests")

    def close(self) -> None:
        with contextlib.suppress(Exception):
            self._connection.close()

    def __enter__(self) -> PostgresCare:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @contextlib.contextmanager
    def _explained(self) -> Generator[None]:
        import psycopg

        try:
            yield
        except psycopg.Error as error:
            raise explain(error, self._address) from None

    @contextlib.contextmanager
    def _transaction(self) -> Generator[psycopg.Connection[Any]]:
        with self._explained(), self._connection.transaction():
            self._connection.execute("SELECT pg_advisory_xact_lock(%s)", (LOCK,))
            yield self._connection
