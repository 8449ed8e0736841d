"""The answer store in a database: what `SqliteStore` and `PostgresStore` do alike.

Everything but connections: a lookup asks the filter in memory first (`KnownKeys`), then what was read ahead, then the
database; everything that is written goes through the one thread that writes (`Writer`).
"""

from __future__ import annotations

import abc
from collections.abc import Sequence
from decimal import Decimal
from typing import Any, Self

from distill.gateway.budget import Amount
from distill.gateway.money import usd
from distill.gateway.store.ahead import ReadAhead
from distill.gateway.store.base import Record, Spent, StoreStats
from distill.gateway.store.dialect import Dialect, record_of
from distill.gateway.store.known import KnownKeys
from distill.gateway.store.writer import Writer

__all__ = ["SqlStore"]


class SqlStore(abc.ABC):
    """See `AnswerStore`. Close it, or use it in a `with` statement."""

    def __init__(self, sql: Dialect, writer: Writer, known: KnownKeys) -> None:
        self._sql = sql
        self._writer = writer
        self._known = known
        self._ahead = ReadAhead()
        self._closed = False

    @property
    @abc.abstractmethod
    def where(self) -> str:
        """The file or the server, for people: without a password."""

    @abc.abstractmethod
    def size(self) -> int:
        """Bytes on disk."""

    @abc.abstractmethod
    def _read(self, query: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Every row of the answer, read on the caller's thread.

        Raises:
            RunError: the database cannot be read.
        """

    @abc.abstractmethod
    def _stop_reading(self) -> None:
        """Close the connection that reads."""

    def get(self, key: str) -> Record | None:
        """The answer, or None."""
        if not self._known.maybe(key):
            return None
        wanted = bytes.fromhex(key)
        row = self._ahead.take(wanted)
        if row is None:
            found = self._read(self._sql.get, (wanted,))
            if not found:
                return None
            *row, place = found[0]
            if self._ahead.follows(place):
                self._ahead.hold(self._read(self._sql.following, (place,)))
        return record_of(key, row)

    async def put(self, record: Record, *, replace: bool = False) -> Record:
        """Returns once the answer is on disk."""
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
        found = self._read(self._sql.exposed, (run,))
        amount = Amount(*found[0]) if found else Amount()
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
        found = self._read(self._sql.amounts, (run,))
        return (Amount(*found[0][:2]), Amount(*found[0][2:])) if found else (Amount(), Amount())

    def used_since(self, provider: str, model: str, since: float) -> list[tuple[float, str, int, int]]:
        """What a model has answered from Unix time `since` on, in slices of ten minutes, by run."""
        return self._read(self._sql.used, (since, provider, model))

    def stats(self) -> StoreStats:
        """Counts and sums over all runs."""
        models = self._read(self._sql.models)
        ((pico, tokens),) = self._read(self._sql.totals)
        return StoreStats(
            answers=sum(count for _, count, _ in models),
            refusals=sum(refused for _, _, refused in models),
            bytes=self.size(),
            cost=usd(pico) if pico else Decimal(0),
            tokens=tokens,
            models={name: count for name, count, _ in models},
        )

    @property
    def unsaved(self) -> int:
        """Answers that still wait for the disk."""
        return self._writer.unsaved

    async def flush(self, timeout: float) -> int:  # noqa: ASYNC109 - part of the store's contract
        """Wait until everything is on disk; returns the number of answers that are not."""
        return await self._writer.flush(timeout)

    def close(self) -> None:
        """Write what is left and let go; safe to call twice."""
        if not self._closed:
            self._closed = True
            self._stop_reading()
            self._writer.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
