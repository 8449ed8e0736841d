"""Many slots at once, results in slot order, memory bounded.

A fixed number of workers pull slots from one iterator; the consumer receives the results in the order of the
slots, whatever order they finish in. A worker whose answers are all in the store never gives up the loop, so
replaying costs no task, no timer and no queue a row. `window` bounds how far the fastest worker runs ahead of
the slowest: it is the memory of the pump.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Generic, TypeVar

__all__ = ["Pump"]

T = TypeVar("T")
R = TypeVar("R")

_PATIENCE = 1.0  # seconds after which results are handed on although the batch is not full: a slow teacher shows rows
_BREATH = 128  # results a worker makes before it lets others run, when nothing made it wait


class Pump(Generic[T, R]):
    """Runs `work` over `items` with `workers` at once and yields the results in order.

    `work` returns None when the item could not be finished because everything is stopping; such items are
    skipped in the output and counted in `unfinished`. An exception of `work` ends the pump and is raised by
    the iterator.
    """

    def __init__(
        self,
        items: Iterator[T],
        work: Callable[[T], Awaitable[R | None]],
        *,
        workers: int,
        window: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._items = items
        self._work = work
        self._workers = workers
        self._window = max(window, workers)
        self._clock = clock
        self._results: dict[int, R | None] = {}
        self._next = 0
        self._head = 0
        self._ended = False
        self._ready = asyncio.Event()
        self._room = asyncio.Event()
        self.unfinished = 0

    @property
    def started(self) -> int:
        """Items pulled so far."""
        return self._next

    def stop(self) -> None:
        """Pull no more items; what is under way goes on."""
        self._ended = True
        self._ready.set()
        self._room.set()

    async def run(self, consume: Callable[[list[R]], Awaitable[None]], *, batch: int) -> None:
        """Call `consume` with lists of up to `batch` results, in order, one call at a time; with fewer of them when
        the last call was a second ago. Where the lists end depends on time, what they hold does not."""
        async with asyncio.TaskGroup() as group:
            workers = [group.create_task(self._worker()) for _ in range(self._workers)]
            try:
                async for results in self._batches(workers, batch):
                    await consume(results)
            finally:
                for worker in workers:
                    worker.cancel()

    async def _batches(self, workers: list[asyncio.Task[None]], batch: int) -> AsyncIterator[list[R]]:
        out: list[R] = []
        handed = self._clock() - _PATIENCE  # the first result is handed on at once
        while True:
            while self._head in self._results:
                result = self._results.pop(self._head)
                self._head += 1
                if result is None:
                    self.unfinished += 1
                else:
                    out.append(result)
                if len(out) >= batch:
                    self._room.set()
                    yield out
                    out, handed = [], self._clock()
            self._room.set()
            if out and self._clock() - handed >= _PATIENCE:
                yield out
                out, handed = [], self._clock()
                continue
            if self._ended and self._head >= self._next:
                break
            self._ready.clear()
            # A worker may have finished the head between the loop above and the clear.
            if self._head in self._results or (self._ended and self._head >= self._next):
                continue
            await self._ready.wait()
        if out:
            yield out

    async def _worker(self) -> None:
        unbroken = 0
        while not self._ended:
            if self._next - self._head >= self._window:
                self._room.clear()
                await self._room.wait()
                unbroken = 0
                continue
            try:
                item = next(self._items)
            except StopIteration:
                self._ended = True
                break
            position = self._next
            self._next += 1
            self._results[position] = await self._work(item)
            if position == self._head:
                self._ready.set()
            unbroken += 1
            if unbroken >= _BREATH:
                unbroken = 0
                await asyncio.sleep(0)
        self._ready.set()
        self._room.set()
