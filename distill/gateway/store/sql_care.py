"""What a keeper does with a store in a database: what `SqliteCare` and `PostgresCare` do alike."""

from __future__ import annotations

import abc
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any, Self

from distill.gateway.store.base import Record
from distill.gateway.store.care import Entry, RunLine, Tally
from distill.gateway.store.dialect import PAGE, Dialect, Execute

__all__ = ["SqlCare"]


class SqlCare(abc.ABC):
    """See `StoreCare`. Use it in a `with` statement."""

    sql: Dialect

    @abc.abstractmethod
    def _rows(self, query: str, parameters: Sequence[Any] = ()) -> Iterable[tuple[Any, ...]]:
        """The rows of the answer, as they are read."""

    @abc.abstractmethod
    def _explained(self) -> AbstractContextManager[None]:
        """Turns what the database complains of into what a user understands."""

    @abc.abstractmethod
    def _books(self) -> AbstractContextManager[Execute]:
        """A transaction that writes."""

    @abc.abstractmethod
    def close(self) -> None:
        """Safe to call twice."""

    def tallies(self) -> list[Tally]:
        """By model and run."""
        with self._explained():
            return [Tally(*row) for row in self._rows(self.sql.tallies)]

    def ledger(self) -> list[RunLine]:
        """What each run paid, may have lost, and has under way."""
        with self._explained():
            return [RunLine(*row) for row in self._rows(self.sql.ledger)]

    def entries(self) -> Iterator[Entry]:
        """Every answer, in the order in which they were stored."""
        last = 0
        while True:
            with self._explained():
                rows = list(self._rows(self.sql.entries, (last,)))
            for number, key, *values, crc, wire in rows:
                last = number
                record = Record(key.hex(), *values, request=wire or b"")
                yield Entry(record, zlib.crc32(record.body) == crc)
            if len(rows) < PAGE:
                return

    def paid_by(self, run: str) -> Iterator[tuple[bytes, int, int]]:
        """Key, bytes and pico-USD of every answer that `run` paid."""
        with self._explained():
            yield from ((key, size, pico) for key, size, pico in self._rows(self.sql.paid_by, (run,)))

    def enter(self, lines: Iterable[RunLine]) -> None:
        """Raise the books of runs to what `lines` say."""
        with self._books() as execute:
            for line in lines:
                lost = (line.lost_pico + line.exposed_pico, line.lost_tokens + line.exposed_tokens)
                execute(self.sql.enter, (*line[:5], *lost))

    def balance(self) -> None:
        """Raise the books of every run to the sum of its answers."""
        with self._books() as execute:
            execute(self.sql.balance, ())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
