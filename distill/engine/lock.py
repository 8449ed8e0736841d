"""One run directory, one writer: a lock with its owner's process and host in it.

On one machine the kernel keeps the lock and frees it however its owner ends, so that a lock that can be taken was left
behind by nobody or by a dead process. Over a network file system locks may not reach other machines: there the owner's
sign of life counts, which is the time of the lock file, set again every twenty seconds. Both clocks in that comparison
are the file system's.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import socket
import tempfile
import threading
from collections.abc import Generator
from pathlib import Path

from distill.errors import RunLocked

__all__ = ["run_lock"]

_ALIVE_EVERY_S = 20.0
_DEAD_AFTER_S = 90.0
_OWNER = re.compile(r"process (\d+) on (\S+)")


@contextlib.contextmanager
def run_lock(path: Path, *, host: str | None = None) -> Generator[str]:
    """Hold the run whose lock file is `path`. Yields who held it before and ended without a word, or nothing.

    Raises:
        RunLocked: somebody else holds it; says who.
    """
    host = host or socket.gethostname()
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        shared = _take(descriptor, path)
        before = _owner(descriptor)
        match = _OWNER.match(before)
        if match is not None and match.group(2) != host:
            _refuse_the_living(before, path)
        elif match is not None and not shared and _runs(int(match.group(1))):
            raise _locked(before, path)
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"process {os.getpid()} on {host}\n".encode(), 0)
        ended = threading.Event()
        alive = threading.Thread(target=_live, args=(descriptor, ended), name="distill-lock", daemon=True)
        alive.start()
        try:
            yield before
        finally:
            ended.set()
            alive.join()  # it must not touch a descriptor that is another file by then
            with contextlib.suppress(OSError):
                os.ftruncate(descriptor, 0)  # whoever comes next is told of nobody
    finally:
        os.close(descriptor)


def _take(descriptor: int, path: Path) -> bool:
    """Take the kernel's lock; False where the file system has none."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise _locked(_owner(descriptor), path) from None
    except OSError:
        return False
    return True


def _refuse_the_living(owner: str, path: Path) -> None:
    """An owner on another machine: its lock may not reach us, so its sign of life counts."""
    silent = _now(path.parent) - path.stat().st_mtime
    if silent < _DEAD_AFTER_S:
        raise RunLocked(
            f"{path.parent} is being written by {owner}: its last sign of life is {max(0.0, silent):.0f} s old",
            hint="wait for it to end, or name another directory with --run. If it is dead, the same command takes the "
            f"run over {_DEAD_AFTER_S:.0f} s after that sign.",
        )


def _locked(owner: str, path: Path) -> RunLocked:
    return RunLocked(
        f"{path.parent} is being written by {owner or 'another process'}",
        hint="wait for it to end, or name another directory with --run",
    )


def _owner(descriptor: int) -> str:
    return os.pread(descriptor, 200, 0).decode("utf-8", "replace").strip()


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        pass
    return True


def _now(folder: Path) -> float:
    """Unix time by the clock of the file system."""
    with tempfile.TemporaryFile(dir=folder) as file:
        file.write(b".")
        file.flush()
        return os.fstat(file.fileno()).st_mtime


def _live(descriptor: int, ended: threading.Event) -> None:
    while not ended.wait(_ALIVE_EVERY_S):
        with contextlib.suppress(OSError):
            os.utime(descriptor)
