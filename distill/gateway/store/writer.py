"""The one thread that writes to the answer store: whatever is queued becomes one transaction.

A commit costs a disk flush, whether it holds one answer or a thousand; so while one is under way the next batch
gathers. A batch is told about in one call to the event loop. When the disk or the server refuses, those who wait are
told at once (the run stops), but the answers stay in memory and are tried again until the store is closed: they are
paid. What a transaction is, the database decides (`Committer`).
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from distill.errors import RunError
from distill.gateway.budget import Amount
from distill.gateway.store.base import Record
from distill.gateway.store.known import KnownKeys

__all__ = ["Committer", "Expose", "Lose", "Put", "Work", "Writer"]

_MOST = 2_000
_GATHER_S = 0.002
_AGAIN_S = 0.5


@dataclass(slots=True)
class Put:
    """An answer to store; `replace`: in the place of the one that stands there."""

    record: Record
    replace: bool
    future: asyncio.Future[Record] | None


@dataclass(slots=True)
class Lose:
    """What a call without an answer may have cost; `recovered`: it was exposed until now."""

    run: str
    amount: Amount
    recovered: bool


@dataclass(slots=True)
class Expose:
    """What calls under way may cost."""

    run: str
    amount: Amount
    future: asyncio.Future[None] | None


@dataclass(slots=True)
class _Marker:
    done: Callable[[], None]


Work = Put | Lose | Expose
_Item = Work | _Marker


class Committer(Protocol):
    """A database as the writer's thread sees it; nobody else uses its connection."""

    def commit(self, work: Sequence[Work]) -> list[Record]:
        """All of `work` in one transaction that is on disk on return. Returns, for every `Put` in order, the record
        that stands there afterwards: its own, or the one that was first.

        Raises:
            RunError: nothing of it is stored. The same work will be brought again.
        """
        ...

    def news(self) -> Iterable[bytes]:
        """Keys of answers that other processes have stored since the last call, as far as that can be told now."""
        ...

    def close(self) -> None:
        """Let go of the connection; never raises."""
        ...


class Writer:
    """Owns `committer` from now on."""

    def __init__(self, committer: Committer, known: KnownKeys) -> None:
        self._committer = committer
        self._known = known
        self._queue: queue.SimpleQueue[_Item | None] = queue.SimpleQueue()
        self._held: list[_Item] = []
        self._queued = 0
        self._settled = 0
        self._closing = False
        self._thread = threading.Thread(target=self._work, name="distill-answers", daemon=True)
        self._thread.start()

    @property
    def unsaved(self) -> int:
        """Answers that are not on disk yet."""
        return self._queued - self._settled

    async def put(self, record: Record, *, replace: bool) -> Record:
        future: asyncio.Future[Record] = asyncio.get_running_loop().create_future()
        self._queued += 1
        self._queue.put(Put(record, replace, future))
        return await future

    def lose(self, run: str, amount: Amount, *, recovered: bool = False) -> None:
        self._queue.put(Lose(run, amount, recovered))

    async def expose(self, run: str, amount: Amount) -> None:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._queue.put(Expose(run, amount, future))
        await future

    def relax(self, run: str, amount: Amount) -> None:
        self._queue.put(Expose(run, amount, None))

    def drain(self) -> None:
        """Block until what is queued now has been tried."""
        done = threading.Event()
        self._queue.put(_Marker(done.set))
        done.wait()

    async def flush(self, timeout: float) -> int:  # noqa: ASYNC109 - part of the store's contract
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout
        while True:
            await self._tried(loop)
            # A slow disk is waited for; only one that refuses is given up.
            if not self.unsaved or loop.time() >= deadline:
                return self.unsaved
            await asyncio.sleep(min(_AGAIN_S, timeout) / 5)

    async def _tried(self, loop: asyncio.AbstractEventLoop) -> None:
        """Wait until what is queued now has been tried."""
        done = asyncio.Event()

        def tell() -> None:
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(done.set)

        self._queue.put(_Marker(tell))
        await done.wait()

    def close(self) -> None:
        """Try once more to write what is left, then end."""
        if not self._closing:
            self._closing = True
            self._queue.put(None)
        self._thread.join()

    # -- in the thread ------------------------------------------------------------------------------------------

    def _work(self) -> None:
        going = True
        while going:
            batch, going = self._gather()
            batch = [*self._held, *batch]
            self._held = []
            markers = [item for item in batch if isinstance(item, _Marker)]
            work: list[Work] = [item for item in batch if not isinstance(item, _Marker)]
            if work:
                self._write(work)
            for marker in markers:
                marker.done()
        self._committer.close()

    def _gather(self) -> tuple[list[_Item], bool]:
        batch: list[_Item] = []
        try:
            item = self._queue.get(timeout=_AGAIN_S if self._held else None)
            if isinstance(item, Put) and self._queue.empty():
                time.sleep(_GATHER_S)  # answers come in company; a flush each would cost more than this wait
            while True:
                if item is None:
                    return batch, False
                batch.append(item)
                if len(batch) >= _MOST:
                    return batch, True
                item = self._queue.get_nowait()
        except queue.Empty:
            return batch, True

    def _write(self, work: list[Work]) -> None:
        try:
            standing = self._committer.commit(work)
        except RunError as error:
            self._hold(work, error)
            return
        puts = [item for item in work if isinstance(item, Put)]
        for item in puts:
            self._known.add(item.record.key)
        self._settled += len(puts)
        self._known.add_all(self._committer.news())
        told: list[tuple[asyncio.Future[Any] | None, Any]] = [
            (put.future, record) for put, record in zip(puts, standing, strict=True)
        ]
        _tell(told + [(item.future, None) for item in work if isinstance(item, Expose)], None)

    def _hold(self, work: list[Work], error: RunError) -> None:
        """Keep the batch for another attempt, and tell those who wait that there is trouble."""
        waiting: list[tuple[asyncio.Future[Any] | None, Any]] = []
        for item in work:
            if isinstance(item, Put | Expose):
                waiting.append((item.future, None))
                item.future = None
        # An exposure that nobody waits for any more must not overwrite a later one.
        self._held = [item for item in work if not isinstance(item, Expose)]
        _tell(waiting, error)


def _tell(results: list[tuple[asyncio.Future[Any] | None, Any]], error: RunError | None) -> None:
    """Resolve futures on their event loop, all in one call."""
    by_loop: dict[asyncio.AbstractEventLoop, list[tuple[asyncio.Future[Any], Any]]] = {}
    for future, value in results:
        if future is not None:
            by_loop.setdefault(future.get_loop(), []).append((future, value))
    for loop, pairs in by_loop.items():
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits
            loop.call_soon_threadsafe(_resolve, pairs, error)


def _resolve(pairs: list[tuple[asyncio.Future[Any], Any]], error: RunError | None) -> None:
    for future, value in pairs:
        if future.done():
            continue
        if error is None:
            future.set_result(value)
        else:
            future.set_exception(type(error)(error.message, hint=error.hint))
