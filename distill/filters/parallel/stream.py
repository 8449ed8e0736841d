"""Batches through a chain, in order: what may be done anywhere is done by worker processes or read from a journal, what
must be done in order is done here.

Each segment that may be done anywhere holds a few batches (see `Pool.window`), so that the workers have something to do
while this process judges. Memory is bounded by that: batches of at most 1,024 rows or 8 MB, `workers + 2` of them a
segment.
"""

# Arrow's arrays are generic over types that only run time knows.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportUnknownParameterType=false, reportMissingTypeArgument=false
from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import pyarrow as pa
import xxhash

from distill.filters.base import Rewriter
from distill.filters.chain import Chain, ChainVerdicts
from distill.filters.parallel.copies import Copies, Orders
from distill.filters.parallel.journal import Journal
from distill.filters.parallel.pool import Pool
from distill.filters.parallel.segments import Segment, cut
from distill.filters.parallel.wire import absorb
from distill.recipe import FilterStep

__all__ = ["Item", "Stream"]

T = TypeVar("T")


@dataclass(slots=True)
class Item(Generic[T]):
    """A batch on its way: what the caller knows it by, its rows, and what was said of them so far."""

    of: T
    rows: pa.Table
    verdicts: ChainVerdicts


class Stream:
    """One way through a chain."""

    def __init__(
        self,
        chain: Chain,
        steps: Sequence[FilterStep],
        orders: Orders,
        *,
        pool: Pool | None = None,
        journal: Journal | None = None,
    ) -> None:
        self._chain, self._orders, self._pool, self._journal = chain, orders, pool, journal
        self._segments = cut(steps, chain)
        self._home = Copies(orders, chain)

    def judge(self, batches: Iterable[tuple[T, pa.Table]]) -> Iterator[Item[T]]:
        """Every batch with its verdicts, in order."""
        chain = self._chain
        items: Iterator[Item[T]] = (Item(of, rows, chain.start(rows.num_rows)) for of, rows in batches)
        if self._pool is None and self._journal is None:
            return self._in_order(range(len(chain.steps)), items)
        for segment in self._segments:
            items = self._anywhere(segment, items) if segment.anywhere else self._in_order(segment.span, items)
        return items

    def _in_order(self, span: range, items: Iterator[Item[T]]) -> Iterator[Item[T]]:
        for item in items:
            self._chain.run(item.rows, item.verdicts, span)
            yield item

    def _anywhere(self, segment: Segment, items: Iterator[Item[T]]) -> Iterator[Item[T]]:
        waiting: deque[tuple[Item[T], Callable[[], bytes]]] = deque()
        window = 1 if self._pool is None or segment.at_home else self._pool.window
        for number, item in enumerate(items):
            waiting.append((item, self._begin(segment, number, item)))
            if len(waiting) >= window:
                yield self._end(segment, *waiting.popleft())
        while waiting:
            yield self._end(segment, *waiting.popleft())

    def _begin(self, segment: Segment, number: int, item: Item[T]) -> Callable[[], bytes]:
        verdicts, journal = item.verdicts, self._journal
        keep = verdicts.keep.tobytes()
        rewrites = any(isinstance(self._chain.steps[place], Rewriter) for place in segment.span)
        evidence = verdicts.evidence if rewrites else None
        given = _digest(keep, evidence)
        if journal is not None and (said := journal.get(segment.number, number, given)) is not None:
            return lambda: said
        rows = verdicts.rewritten(item.rows)
        if self._pool is None or segment.at_home:
            said = self._home.judge(segment, rows, keep, evidence)
            wait: Callable[[], bytes] = lambda: said  # noqa: E731
        else:
            wait = self._pool.judge(self._orders, segment, rows, keep, evidence)
        return wait if journal is None else lambda: _entered(journal, segment, number, given, wait())

    def _end(self, segment: Segment, item: Item[T], wait: Callable[[], bytes]) -> Item[T]:
        absorb(self._chain, item.verdicts, segment.span, wait())
        return item


def _entered(journal: Journal, segment: Segment, number: int, given: int, said: bytes) -> bytes:
    journal.add(segment.number, number, given, said)
    return said


def _digest(keep: bytes, evidence: list[str] | None) -> int:
    hash_ = xxhash.xxh3_64(keep)
    for text in evidence or ():
        hash_.update(text.encode("utf-8", "surrogatepass"))
        hash_.update(b"\0")
    return hash_.intdigest()
