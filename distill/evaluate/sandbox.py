"""Programs that a model has written, run where they can do no harm.

Each program gets a Linux sandbox of its own, made by `sandbox_boot.py`: new mount, network, process, IPC and host name
spaces (and a user space where it is not started by root), a root of read-only system libraries and Python's own, an
empty folder in memory as its only writable place, no network, no environment, an unprivileged user, no new privileges,
and hard limits on CPU seconds, memory, file sizes, open files and processes. Time is counted outside: what is still
there at the end is killed with its whole process space. Where the kernel gives no such spaces, nothing is run at all.

What it does not do: a program that looks for the pipe of its own verdict can write "passed" into it. The sandbox
protects the machine, not the score from a model that cheats on purpose.
"""

from __future__ import annotations

import os
import re
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import cache
from itertools import repeat
from pathlib import Path

import orjson

from distill.errors import InputError

__all__ = ["Limits", "Outcome", "require_sandbox", "run_program", "run_programs"]

_BOOT = Path(__file__).with_name("sandbox_boot.py")
_VERDICT = 2000  # bytes of a verdict
_GONE_S = 10.0  # the kernel needs a moment to clear a process space away


@dataclass(frozen=True, slots=True)
class Limits:
    """What one program may use."""

    seconds: float = 10.0
    """Wall time, and CPU time rounded up."""
    memory_bytes: int = 512 << 20
    """Address space of each process."""
    disk_bytes: int = 16 << 20
    """Of the folder in memory; one file may have a quarter."""
    processes: int = 16
    """Processes and threads together."""
    output_bytes: int = 64 << 10
    """Standard output and error together; more ends the program."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a program ended."""

    ending: str
    """`passed`, `failed` (an exception), `timeout`, `output` (too much of it), `killed` (a limit, or a crash)."""
    why: str = ""

    @property
    def passed(self) -> bool:
        return self.ending == "passed"


def run_programs(jobs: Sequence[tuple[str, str]], limits: Limits | None = None) -> list[Outcome]:
    """Run (program, tests) pairs, one a core at a time; outcomes in the order of `jobs`."""
    programs, tests = [program for program, _ in jobs], [tests for _, tests in jobs]
    with ThreadPoolExecutor(max_workers=max(1, len(os.sched_getaffinity(0)))) as pool:
        return list(pool.map(run_program, programs, tests, repeat(limits)))


def run_program(program: str, tests: str, limits: Limits | None = None) -> Outcome:
    """Run `program` and then `tests` in the same names.

    Raises:
        InputError: there is no sandbox on this machine.
    """
    chosen = limits or Limits()
    with tempfile.TemporaryDirectory(prefix="distill-sandbox-") as folder:
        return _run(program, tests, chosen, Path(folder))


@cache
def _problem() -> str | None:
    """What this machine lacks for a sandbox; None where it has all."""
    if sys.platform != "linux":
        return "it is made of Linux namespaces"
    if run_program("", "pass", Limits(seconds=20)).passed:
        return None
    outcome = run_program("", "pass", Limits(seconds=20))
    return None if outcome.passed else outcome.why or outcome.ending


def require_sandbox() -> None:
    """Make sure that programs can be run safely here.

    Raises:
        InputError: they cannot; says what is missing.
    """
    problem = _problem()
    if problem is not None:
        raise InputError(
            f"programs of a model cannot be run safely on this machine: {problem}",
            hint="it has to allow user namespaces (`unshare -Urn true`); many containers forbid them",
        )


def _run(program: str, tests: str, limits: Limits, folder: Path) -> Outcome:
    settings = orjson.dumps({"root": str(folder), "prefix": sys.base_prefix, "python": _python(), **asdict(limits)})
    read, write = os.pipe()
    try:
        process = subprocess.Popen(  # noqa: S603 - our own boot file
            [_python(), "-I", "-S", str(_BOOT), settings.decode(), str(write)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={},
            cwd="/",
            pass_fds=(write,),
            start_new_session=True,
        )
    except OSError as error:
        os.close(read)
        os.close(write)
        return Outcome("killed", f"python cannot be started: {error.strerror}")
    os.close(write)
    try:
        ending = _watch(process, read, orjson.dumps([_clean(program), _clean(tests)]), limits)
    finally:
        # The boot process is the parent of the process space: with it, everything inside dies.
        _kill(process)
        process.wait()
        _until_gone(read)
        os.close(read)
    return ending


def _watch(process: subprocess.Popen[bytes], verdict: int, source: bytes, limits: Limits) -> Outcome:
    """Feed the program, read what it says, and end it at the first limit it reaches."""
    assert process.stdin is not None  # noqa: S101 - they were asked for
    assert process.stdout is not None  # noqa: S101
    said, printed, tail = b"", 0, b""
    end = time.monotonic() + limits.seconds
    with process.stdin as stdin, process.stdout as stdout, selectors.DefaultSelector() as open_:
        os.set_blocking(stdin.fileno(), False)
        open_.register(stdout, selectors.EVENT_READ)
        open_.register(verdict, selectors.EVENT_READ)
        open_.register(stdin, selectors.EVENT_WRITE)
        left = memoryview(source)
        while open_.get_map():
            wait = end - time.monotonic()
            if wait <= 0:
                return Outcome("timeout", f"not done after {limits.seconds:g} s")
            for key, _ in open_.select(wait):
                if key.fileobj is stdin:
                    try:
                        left = left[os.write(stdin.fileno(), left[:65536]) :]
                    except BrokenPipeError:
                        left = left[:0]
                    if not left:
                        open_.unregister(stdin)
                        stdin.close()
                    continue
                chunk = os.read(key.fd, 65536)
                if not chunk:
                    open_.unregister(key.fileobj)
                elif key.fd == verdict:
                    said = (said + chunk)[:_VERDICT]
                else:
                    printed += len(chunk)
                    tail = (tail + chunk)[-_VERDICT:]
                    if printed > limits.output_bytes:
                        return Outcome("output", f"printed more than {limits.output_bytes} bytes")
    return _read(said.decode("utf-8", "replace"), tail.decode("utf-8", "replace"))


def _until_gone(verdict: int) -> None:
    """Wait until no process of the sandbox is left: each of them holds the other end of `verdict`."""
    end = time.monotonic() + _GONE_S
    with selectors.DefaultSelector() as open_:
        open_.register(verdict, selectors.EVENT_READ)
        while (left := end - time.monotonic()) > 0 and open_.select(left):
            if not os.read(verdict, 65536):
                return


def _read(said: str, printed: str) -> Outcome:
    if said == "passed":
        return Outcome("passed")
    kind, _, why = said.partition(":")
    if kind in ("failed", "sandbox"):
        return Outcome("failed" if kind == "failed" else "killed", _line(why))
    last = next((line for line in reversed(printed.splitlines()) if line.strip()), "")
    return Outcome("killed", _line(last) or "ended before its tests did")


def _line(text: str) -> str:
    """One printable line."""
    return re.sub(r"[^\x20-\x7e\u00a0-\ud7ff]+", " ", text).strip()[:300]


def _clean(text: str) -> str:
    return text.encode("utf-8", "replace").decode("utf-8")


def _kill(process: subprocess.Popen[bytes]) -> None:
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        return


@cache
def _python() -> str:
    """The interpreter itself, not a virtual environment's link to it."""
    return os.path.realpath(sys.executable)
