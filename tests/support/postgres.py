"""A PostgreSQL server for tests: a real one, in a folder of its own, on a loopback port, ended with its user.

It is found on the PATH or where a distribution has it (`apt-get install postgresql`); nothing of the machine's own
server is touched. A server refuses to run as root, so root starts it as the user `postgres` or `nobody`.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import secrets
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

__all__ = ["WHY_NOT", "Server", "running"]

PASSWORD = "canary-password-7f3a91"


def _binaries() -> Path | None:
    found = shutil.which("initdb")
    places = [Path(found).resolve().parent] if found else []
    places += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    return next((place for place in places if (place / "initdb").exists() and (place / "postgres").exists()), None)


def _why_not() -> str:
    try:
        import psycopg  # noqa: F401
    except ImportError:
        return "psycopg is not installed: pip install 'distill[postgres]'"
    return "" if _binaries() else "no PostgreSQL server is installed (apt-get install postgresql)"


WHY_NOT = _why_not()
"""Why there is no server here; empty: there is."""


@dataclass(frozen=True)
class Server:
    """A server under way."""

    port: int
    process: subprocess.Popen[bytes]

    def url(self, database: str) -> str:
        return f"postgresql://distill:{PASSWORD}@127.0.0.1:{self.port}/{database}"

    def fresh(self) -> str:
        """The address of a new, empty database."""
        import psycopg

        name = f"t{secrets.token_hex(6)}"
        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}".encode())
        return self.url(name)


@contextlib.contextmanager
def running() -> Iterator[Server]:
    binaries = _binaries()
    assert binaries is not None
    folder = Path(tempfile.mkdtemp(prefix="distill-postgres-"))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    user = _user()
    try:
        (folder / "password").write_text(PASSWORD)
        if user is not None:
            for path in (folder, folder / "password"):
                os.chown(path, user, -1)
        data = str(folder / "data")
        common = {"user": user, "cwd": "/", "env": {"PATH": os.environ["PATH"], "LC_ALL": "C", "TZ": "UTC"}}
        subprocess.run(
            [
                str(binaries / "initdb"),
                *("-D", data, "-U", "distill", "-E", "UTF8", "--auth=scram-sha-256", "--no-sync"),
                f"--pwfile={folder / 'password'}",
            ],
            check=True,
            capture_output=True,
            **common,
        )
        log = (folder / "log").open("wb")
        process = subprocess.Popen(
            [
                str(binaries / "postgres"),
                *("-D", data, "-p", str(port), "-h", "127.0.0.1", "-k", "", "-c", "shared_buffers=32MB"),
            ],
            stdout=log,
            stderr=log,
            **common,
        )
        try:
            server = Server(port, process)
            _await(server, folder / "log")
            yield server
        finally:
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(10)
            process.kill()
            process.wait()
            log.close()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _user() -> int | None:
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(name).pw_uid
    return None


def _await(server: Server, log: Path) -> None:
    import psycopg

    deadline = time.monotonic() + 60
    while True:
        try:
            psycopg.connect(server.url("postgres"), connect_timeout=5).close()
            return
        except psycopg.OperationalError:
            if server.process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"the server did not start: {log.read_text()}") from None
            time.sleep(0.1)
