"""Worker processes: fed in order, and never far ahead of what is taken from them.

The pool is that of `concurrent.futures`. Its processes come from a fork server, a fresh interpreter that has loaded the
filters: libraries are loaded once for any number of workers, and no program with threads and locks is forked. What runs
in them is in `workers`.
"""

from __future__ import annotations

import contextlib
import os
import pickle
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from typing import Any, TypeVar

import pyarrow as pa

from distill.errors import RunError
from distill.filters.parallel import workers as inside
from distill.filters.parallel.copies import Orders
from distill.filters.parallel.segments import Segment
from distill.filters.parallel.wire import table_bytes

__all__ = ["Pool", "open_pool"]

A = TypeVar("A")
B = TypeVar("B")

_ENVIRONMENT = {
    "MKL_NUM_THREADS": "1",
    "NUMBA_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
}
"""One thread a process: there is a process a core."""


class Pool:
    """Processes that read and judge."""

    def __init__(self, executor: ProcessPoolExecutor, workers: int) -> None:
        self._executor = executor
        self._orders: tuple[Orders | None, bytes] = (None, b"")
        self.window = workers + 2
        """Pieces of work of one kind that are handed out before the first of them is taken back."""
        self.peak = 0
        """Most bytes that one of the processes has held, as far as is known."""
        self._cpu: dict[int, float] = {}
        self._loaded = 0.0

    @property
    def cpu_seconds(self) -> float:
        """Of all processes, as far as is known; the system does not count them as this one's children."""
        return self._loaded + sum(self._cpu.values())

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
        if self._orders[0] is not orders:
            self._orders = (orders, pickle.dumps(orders))
        return self._begin(inside.judge, self._orders[1], segment, table_bytes(rows), keep, evidence)

    def _begin(self, function: Callable[..., Any], *arguments: Any) -> Callable[[], Any]:
        with _told():
            future: Future[inside.Reply] = self._executor.submit(inside.done, function, arguments)
        return lambda: self._result(future)

    def _result(self, future: Future[inside.Reply]) -> Any:
        with _told():
            reply = future.result()
        self.peak = max(self.peak, reply.peak)
        self._cpu[reply.process] = max(self._cpu.get(reply.process, 0.0), reply.cpu)
        self._loaded = reply.loaded
        if isinstance(reply.found, inside.Failed):
            raise reply.found.again()
        return reply.found


@contextlib.contextmanager
def open_pool(workers: int, orders: Orders | None = None) -> Generator[Pool]:
    """Processes for as long as the block lasts; work that nobody took back is dropped.

    Args:
        orders: what they will probably be asked to judge; they build what it takes while this process goes on.

    Raises:
        RunError: the system gives no processes, or none of what they need to talk to each other.
    """
    context = get_context("forkserver")
    context.set_forkserver_preload([inside.__name__])
    with contextlib.ExitStack() as held:
        try:
            executor = ProcessPoolExecutor(workers, mp_context=context, initializer=inside.begin, initargs=(orders,))
            held.callback(executor.shutdown, cancel_futures=True)
            with _environment():
                for _ in range(workers):
                    executor.submit(os.getpid)  # starts one
        except (OSError, ImportError, NotImplementedError) as error:  # no /dev/shm, no folder for sockets, too many
            raise RunError(f"no worker process can be started: {error}", hint="use --workers 1") from None
        yield Pool(executor, workers)


@contextlib.contextmanager
def _environment() -> Generator[None]:
    """For what is started in the block: the fork server and its children have the environment of its first start."""
    before = {name: os.environ.get(name) for name in _ENVIRONMENT}
    os.environ.update(_ENVIRONMENT)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None) if value is None else os.environ.update({name: value})


@contextlib.contextmanager
def _told() -> Generator[None]:
    try:
        yield
    except BrokenProcessPool:
        raise RunError(
            "a worker process was killed or has run out of memory",
            hint="run the same command again, with fewer --workers where memory is short: what was done is kept",
        ) from None
