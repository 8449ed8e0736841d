"""A command and everything it starts, measured: wall and CPU seconds, and the memory of the whole tree at its peak.

CPU is user and system time of all processes of the tree, also of those that are killed. Memory is sampled four times a
second; where the tree is one process, the kernel's own high-water mark is used.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")
_EVERY_S = 0.25
_LOOK_S = 0.02


@dataclass(frozen=True)
class Ended:
    """How the tree ended. `code` is None where it was ended from outside: over its limit, or by `until`."""

    code: int | None
    out: str
    err: str
    wall: float
    cpu: float
    peak_mb: float
    half_mb: float
    """Memory when half of the time had passed."""
    killed: float | None = None
    """When it was killed, by the machine's monotonic clock."""


def run(
    command: Sequence[str],
    *,
    cwd: Path,
    env: Mapping[str, str],
    limit: float,
    until: Callable[[], bool] | None = None,
) -> Ended:
    """Run a command to its end, to its limit in seconds, or until `until()` holds: then it is killed (SIGKILL), and
    all that it started with it."""
    began = time.monotonic()
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        process = subprocess.Popen(command, cwd=cwd, env=dict(env), stdout=out, stderr=err, start_new_session=True)
        peak = cpu = 0.0
        trace: list[float] = []
        looked = -_EVERY_S
        most = 1
        ended = False
        try:
            while True:
                pid, status, usage = os.wait4(process.pid, os.WNOHANG)
                if pid:
                    ended = True
                    process.returncode = os.waitstatus_to_exitcode(status)
                    # Its own time and that of the children it waited for; what it left behind was seen by the samples.
                    cpu = max(cpu, usage.ru_utime + usage.ru_stime)
                    peak = max(peak, usage.ru_maxrss / 1024) if most > 1 else usage.ru_maxrss / 1024
                    break
                now = time.monotonic() - began
                if now > limit or (until is not None and until()):
                    break
                if now - looked >= _EVERY_S:
                    looked = now
                    pids = _tree(process.pid)
                    most = max(most, len(pids))
                    cpu = max(cpu, sum(map(_cpu, pids)))
                    trace.append(_resident(process.pid) if len(pids) == 1 else sum(map(_memory, pids)))
                    if most > 1:
                        peak = max(peak, trace[-1])
                time.sleep(_LOOK_S)
        finally:
            if not ended:
                cpu = max(cpu, sum(map(_cpu, _tree(process.pid))))
                if most == 1:
                    peak = max(peak, _high_water(process.pid))
            killed = time.monotonic()
            _kill(process.pid)
            if not ended:
                process.wait()
        wall = time.monotonic() - began
        out.seek(0)
        err.seek(0)
        return Ended(
            process.returncode if ended else None,
            out.read().decode("utf-8", "replace"),
            err.read().decode("utf-8", "replace"),
            wall,
            cpu,
            peak,
            trace[len(trace) // 2] if trace else 0.0,
            None if ended else killed,
        )


def _kill(leader: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(leader, signal.SIGKILL)


def _tree(root: int) -> list[int]:
    pids, left = [], [root]
    while left:
        pid = left.pop()
        pids.append(pid)
        with contextlib.suppress(OSError):
            for task in os.listdir(f"/proc/{pid}/task"):
                with contextlib.suppress(OSError):
                    left += map(int, Path(f"/proc/{pid}/task/{task}/children").read_text().split())
    return pids


def _cpu(pid: int) -> float:
    """Seconds of a process, and of the children it has waited for."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return sum(map(int, fields[11:15])) / _TICKS
    return 0.0


def _resident(pid: int) -> float:
    with contextlib.suppress(OSError):
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE / 1e6
    return 0.0


def _memory(pid: int) -> float:
    """MB of a process, pages that several share counted in parts."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) / 1024
    return 0.0


def _high_water(pid: int) -> float:
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    return 0.0
