"""Worker processes: fed in order, and never far ahead of what is taken from them (see `workers` for what they are).

A worker has at most two pieces of work, the one it does and the next; what is left waits here. There are no threads:
replies are taken in whenever work is handed out or waited for.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import socket
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass, field
from multiprocessing.connection import wait as ready
from typing import IO, Any, TypeVar, cast

import pyarrow as pa

from distill.errors import RunError
from distill.filters.parallel.copies import Orders
from distill.filters.parallel.segments import Segment
from distill.filters.parallel.wire import table_bytes
from distill.filters.parallel.workers import (
    ENVIRONMENT,
    FILES,
    PROGRAM,
    Failed,
    Fault,
    Start,
    judge,
    read,
    shared,
    write,
)

__all__ = ["Pool", "cores", "open_pool"]

A = TypeVar("A")
B = TypeVar("B")


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass(slots=True, eq=False)
class _Job:
    """A piece of work, and what came of it."""

    work: bytes
    reply: bytes | None = None


@dataclass(slots=True)
class _Worker:
    """What this side holds of one."""

    line: socket.socket
    files: tuple[int, ...]
    jobs: dict[int, _Job] = field(default_factory=dict[int, _Job])
    """What it was given and has not done, by file."""

    def give(self, job: _Job) -> None:
        number = next(number for number in range(len(self.files)) if number not in self.jobs)
        self.jobs[number] = job
        write(self.line, number, self.files[number], job.work)
        job.work = b""

    def close(self) -> None:
        self.line.close()
        for file in self.files:
            os.close(file)


class Pool:
    """Processes that read and judge."""

    def __init__(self, workers: list[_Worker]) -> None:
        self._workers = workers
        self._waiting: deque[_Job] = deque()
        self._orders: tuple[Orders | None, bytes] = (None, b"")
        self.window = len(workers) + 2
        """Pieces of work of one kind that are handed out before the first of them is taken back."""
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
        if self._orders[0] is not orders:
            self._orders = (orders, pickle.dumps(orders))
        return self._begin(judge, self._orders[1], segment, table_bytes(rows), keep, evidence)

    def _begin(self, function: Callable[..., Any], *arguments: Any) -> Callable[[], Any]:
        job = _Job(pickle.dumps((function, arguments)))
        self._waiting.append(job)
        self._take_in(wait=False)
        return lambda: self._result(job)

    def _result(self, job: _Job) -> Any:
        while job.reply is None:
            self._take_in(wait=True)
        found, peak = pickle.loads(job.reply)  # noqa: S301  # from a process that was started here
        self.peak = max(self.peak, peak)
        if isinstance(found, Failed):
            raise found.again()
        if isinstance(found, Fault):
            raise RuntimeError(f"in a worker process:\n{found.traceback}")
        return found

    def _take_in(self, *, wait: bool) -> None:
        """Take the replies that are there (with `wait`: one at least), and give new work to who has room for it."""
        busy = {worker.line: worker for worker in self._workers if worker.jobs}
        try:
            for line in cast("list[socket.socket]", ready(list(busy), None if wait and busy else 0)):
                worker = busy[line]
                found = read(line, worker.files)
                if found is None:
                    raise ConnectionResetError
                worker.jobs.pop(found[0]).reply = found[1]
            for had in range(FILES):  # those with nothing to do first
                for worker in self._workers:
                    if self._waiting and len(worker.jobs) == had:
                        worker.give(self._waiting.popleft())
        except (BrokenPipeError, ConnectionResetError):
            raise RunError(
                "a worker process was killed or has run out of memory",
                hint="run the same command again, with fewer --workers where memory is short: what was done is kept",
            ) from None


@contextlib.contextmanager
def open_pool(workers: int, orders: Orders | None = None) -> Generator[Pool]:
    """Processes for as long as the block lasts; work that nobody took back is dropped.

    Args:
        orders: what they will probably be asked to judge; they load what it takes while this process goes on.
    """
    started, others = list[_Worker](), list[socket.socket]()
    for _ in range(workers):
        ours, other = socket.socketpair()
        started.append(_Worker(ours, tuple(shared() for _ in range(FILES))))
        others.append(other)
    lines = tuple((other.fileno(), worker.files) for other, worker in zip(others, started, strict=True))
    with subprocess.Popen(  # noqa: S603  # this program
        [sys.executable, "-c", PROGRAM],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        env={**os.environ, **ENVIRONMENT},
        pass_fds=[descriptor for line, files in lines for descriptor in (line, *files)],
    ) as first:
        try:
            for other in others:
                other.close()
            with contextlib.suppress(BrokenPipeError), cast("IO[bytes]", first.stdin) as told:
                told.write(pickle.dumps(sys.path) + pickle.dumps(Start(lines, orders)))
            yield Pool(started)
        finally:
            for worker in started:
                worker.close()  # which ends it
