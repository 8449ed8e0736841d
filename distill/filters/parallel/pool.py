"""Worker processes: started fresh, fed in order, and never far ahead of what is taken from them.

Processes are spawned, not forked: the libraries underneath hold threads and locks. A worker that loses its parent
ends; an interrupt from the keyboard is the parent's alone.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import multiprocessing.connection
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from typing import Any, TypeVar

import pyarrow as pa

from distill.errors import DistillError, RunError
from distill.filters.parallel.copies import Copies, Orders
from distill.filters.parallel.segments import Segment
from distill.filters.parallel.wire import table_bytes, table_of
from distill.io.memory import peak_memory

__all__ = ["Pool", "cores", "open_pool"]

A = TypeVar("A")
B = TypeVar("B")


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Pool:
    """Processes that read and judge."""

    def __init__(self, executor: ProcessPoolExecutor, workers: int) -> None:
        self._executor = executor
        self.window = workers + 2
        """Pieces of work that are handed out before the first of them is taken back."""
        self.peak = 0
        """Most bytes that one of the processes has held, as far as is known."""

    def over(self, function: Callable[[A], B], items: Iterable[A]) -> Iterator[B]:
        """`function` of every item, in order."""
        waiting: deque[Callable[[], B]] = deque()
        for item in items:
            waiting.append(self._begin(function, item))
            if len(waiting) >= self.window:
                yield waiting.popleft()()
        while waiting:
            yield waiting.popleft()()

    def judge(
        self, orders: Orders, segment: Segment, rows: pa.Table, keep: bytes, evidence: list[str] | None
    ) -> Callable[[], bytes]:
        """Begin to judge a batch; what is returned waits for what `Copies.judge` says."""
        return self._begin(_judge, orders, segment, table_bytes(rows), keep, evidence)

    def _begin(self, function: Callable[..., Any], *arguments: Any) -> Callable[[], Any]:
        try:
            future: Future[tuple[Any, int]] = self._executor.submit(_told, function, *arguments)
        except BrokenProcessPool:
            raise _lost() from None

        def wait() -> Any:
            try:
                found, peak = future.result()
            except BrokenProcessPool:
                raise _lost() from None
            self.peak = max(self.peak, peak)
            if isinstance(found, _Failed):
                raise found.again()
            return found

        return wait


@contextlib.contextmanager
def open_pool(workers: int) -> Generator[Pool]:
    """Processes for as long as the block lasts; work that nobody took back is dropped."""
    executor = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), _prepare)
    try:
        yield Pool(executor, workers)
    finally:
        executor.shutdown(wait=True, cancel_futures=True)


def _lost() -> RunError:
    return RunError(
        "a worker process was killed or has run out of memory",
        hint="run the same command again, with fewer --workers where memory is short: what was done is kept",
    )


# What runs in the workers


@dataclass(frozen=True, slots=True)
class _Failed:
    """An error that a user can meet. Any other is a fault of the program and is raised as it is."""

    kind: type[DistillError]
    state: dict[str, Any]

    def again(self) -> DistillError:
        error = self.kind.__new__(self.kind)
        DistillError.__init__(error, self.state["message"], hint=self.state["hint"])
        error.__dict__.update(self.state)
        return error


_copies: tuple[Orders, Copies] | None = None


def _prepare() -> None:
    import threadpoolctl

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    pa.set_cpu_count(1)
    threadpoolctl.threadpool_limits(1)  # one thread a process: there is a process a core
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        multiprocessing.connection.wait([parent.sentinel])
        os._exit(1)


def _told(function: Callable[..., Any], *arguments: Any) -> tuple[Any, int]:
    try:
        return function(*arguments), peak_memory()
    except DistillError as error:
        return _Failed(type(error), dict(error.__dict__)), peak_memory()


def _judge(orders: Orders, segment: Segment, rows: bytes, keep: bytes, evidence: list[str] | None) -> bytes:
    global _copies
    if _copies is None or _copies[0] != orders:
        _copies = (orders, Copies(orders))
    return _copies[1].judge(segment, table_of(rows), keep, evidence)
