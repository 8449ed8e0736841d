"""What runs in the processes of a pool, and what they and the process that feeds them say to each other.

The first of them is a fresh interpreter, not a fork of a program with threads and locks. It loads what the chain needs,
builds copies of its filters, and forks into the workers: libraries are loaded once for any number of them, and what
they do not change is held once. It waits for them and does nothing else.

A worker has a line to its feeder (a socket) and two files in memory, so that one piece of work waits while another is
done. A piece of work and what comes of it go through a file; the line only says that one is there, in a few bytes that
never block. So no side needs a thread. A worker that loses its feeder ends; an interrupt from the keyboard is the
feeder's alone.
"""

from __future__ import annotations

import gc
import os
import pickle
import socket
import struct
import sys
import tempfile
import traceback
from dataclasses import dataclass
from typing import Any, NoReturn, cast

from distill.errors import DistillError
from distill.filters.parallel.copies import Copies, Orders
from distill.filters.parallel.segments import Segment
from distill.filters.parallel.wire import table_of
from distill.io.conversion import without_pandas
from distill.io.memory import peak_memory

__all__ = ["ENVIRONMENT", "FILES", "PROGRAM", "Failed", "Fault", "Start", "judge", "main", "read", "shared", "write"]

ENVIRONMENT = {
    "MKL_NUM_THREADS": "1",
    "NUMBA_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
}
"""One thread a process: there is a process a core, and what has one thread may fork."""
FILES = 2
"""Of a worker: one for the work it does, one for what is next."""
PROGRAM = """\
import pickle, signal, sys
signal.signal(signal.SIGINT, signal.SIG_IGN)
sys.path[:] = pickle.load(sys.stdin.buffer)
from distill.filters.parallel.workers import main
main()
"""
"""For a fresh interpreter. Its standard input says where modules are found, and then what to do (`Start`)."""

_SAID = struct.Struct("<BQ")  # file, bytes in it


@dataclass(frozen=True, slots=True)
class Start:
    """What the first process is told."""

    lines: tuple[tuple[int, tuple[int, ...]], ...]
    """Of each worker: the descriptors of its line and of its files."""
    orders: Orders | None
    """What the workers will probably be asked to judge."""


@dataclass(frozen=True, slots=True)
class Failed:
    """An error that a user can meet."""

    kind: type[DistillError]
    state: dict[str, Any]

    def again(self) -> DistillError:
        error = self.kind.__new__(self.kind)
        DistillError.__init__(error, self.state["message"], hint=self.state["hint"])
        error.__dict__.update(self.state)
        return error


@dataclass(frozen=True, slots=True)
class Fault:
    """Any other error: a fault of the program."""

    traceback: str


def shared() -> int:
    """A file without a name that stays in memory, where the system has such files."""
    if sys.platform == "linux":
        return os.memfd_create("distill")
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


def write(line: socket.socket, number: int, file: int, data: bytes) -> None:
    """Put `data` into a file of the other side, and say so."""
    rest, at = memoryview(data), 0
    while at < len(data):
        at += os.pwrite(file, rest[at:], at)
    line.sendall(_SAID.pack(number, len(data)))


def read(line: socket.socket, files: tuple[int, ...]) -> tuple[int, bytes] | None:
    """(number of the file, what the other side put into it); None when it is gone. The file is empty afterwards."""
    said = line.recv(_SAID.size, socket.MSG_WAITALL)
    if len(said) < _SAID.size:
        return None
    number, length = cast(tuple[int, int], _SAID.unpack(said))
    parts, at = list[bytes](), 0
    while at < length:
        parts.append(os.pread(files[number], length - at, at))
        at += len(parts[-1])
    os.ftruncate(files[number], 0)
    return number, b"".join(parts) if len(parts) != 1 else parts[0]


def main() -> None:
    """The first process: load, fork, wait."""
    start: Start = pickle.load(sys.stdin.buffer)  # noqa: S301  # from the process that started this one
    sys.stdin.close()
    without_pandas()
    if start.orders is not None:
        _built(pickle.dumps(start.orders)).prepare()
    gc.freeze()  # what is there stays, so that no worker copies it by looking at it
    children = [_fork(number, start) for number in range(len(start.lines))]
    for line, files in start.lines:
        os.close(line)
        for file in files:
            os.close(file)
    for child in children:
        os.waitpid(child, 0)


def _fork(number: int, start: Start) -> int:
    child = os.fork()
    if not child:
        for other, (line, _) in enumerate(start.lines):
            if other != number:
                os.close(line)  # the feeder sees a worker's end by its line
        _work(*start.lines[number])
    return child


def _work(descriptor: int, files: tuple[int, ...]) -> NoReturn:
    with socket.socket(fileno=descriptor) as line:
        try:
            while (given := read(line, files)) is not None:
                number, work = given
                write(line, number, files[number], pickle.dumps((_done(work), peak_memory())))
        except (BrokenPipeError, ConnectionResetError):
            pass
    os._exit(0)


def _done(work: bytes) -> Any:
    try:
        function, arguments = pickle.loads(work)  # noqa: S301  # from the same
        return function(*arguments)
    except DistillError as error:
        return Failed(type(error), dict(error.__dict__))
    except MemoryError:
        os._exit(1)  # the feeder sees it
    except Exception:
        return Fault(traceback.format_exc())


_copies: tuple[bytes, Copies] | None = None


def _built(orders: bytes) -> Copies:
    """The copies that orders ask for: those that are there, where only what they are calibrated to is new."""
    global _copies
    if _copies is None or _copies[0] != orders:
        wanted: Orders = pickle.loads(orders)  # noqa: S301  # from the same
        copies = Copies(wanted) if _copies is None or not _copies[1].renew(wanted) else _copies[1]
        _copies = (orders, copies)
    return _copies[1]


def judge(orders: bytes, segment: Segment, rows: bytes, keep: bytes, evidence: list[str] | None) -> bytes:
    """What a segment says of a batch (see `Copies.judge`)."""
    return _built(orders).judge(segment, table_of(rows), keep, evidence)
