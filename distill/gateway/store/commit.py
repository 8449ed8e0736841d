"""What a batch does to a database, whichever it is: the money it books, and which answer stands where two came."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from distill.gateway.store.base import Record
from distill.gateway.store.dialect import Dialect, Execute
from distill.gateway.store.writer import Lose, Put, Work

__all__ = ["Rows", "book", "settle"]


class Rows(Protocol):
    """The answers of a database, inside a transaction."""

    def insert(self, records: Sequence[Record]) -> set[bytes]:
        """Store those of `records`, which have different keys, that are not there yet; returns their keys."""
        ...

    def standing(self, keys: Sequence[bytes]) -> dict[bytes, Record | None]:
        """The answers under `keys`, which are there; None where one is damaged."""
        ...

    def remove(self, keys: Sequence[bytes]) -> int:
        """Answers and what was asked; returns how many were there."""
        ...


def settle(rows: Rows, work: Sequence[Work]) -> list[Record]:
    """Store the answers of `work`: the first one to a question wins, unless it is damaged or to be replaced. Returns,
    for each in order, the answer that stands there afterwards."""
    puts = [item for item in work if isinstance(item, Put)]
    first: dict[bytes, Record] = {}
    over: dict[bytes, Record] = {}
    for put in puts:
        key = bytes.fromhex(put.record.key)
        if put.replace:
            over[key] = put.record
        else:
            first.setdefault(key, put.record)
    stored = rows.insert(list(first.values()))
    there = rows.standing([key for key in first if key not in stored]) if len(stored) < len(first) else {}
    over = {key: first[key] for key, record in there.items() if record is None} | over
    if over:
        rows.remove(list(over))
        rows.insert(list(over.values()))
    results: list[Record] = []
    for put in puts:
        key = bytes.fromhex(put.record.key)
        results.append(over.get(key) or there.get(key) or first[key])
    return results


def book(execute: Execute, sql: Dialect, work: Sequence[Work]) -> None:
    """Write the money of `work` into the books: answers summed by run, losses, what is under way."""
    paid: dict[str, tuple[int, int, int, int]] = {}
    for item in work:
        if isinstance(item, Put):
            record = item.record
            count, pico, read, written = paid.get(record.run, (0, 0, 0, 0))
            paid[record.run] = (count + 1, pico + record.cost_pico, read + record.input, written + record.output)
        elif isinstance(item, Lose):
            execute(sql.lose, (item.run, item.amount.pico, item.amount.tokens))
            if item.recovered:
                execute(sql.expose, (item.run, 0, 0))
        else:
            execute(sql.expose, (item.run, item.amount.pico, item.amount.tokens))
    for run, sums in paid.items():
        execute(sql.pay, (run, *sums))
