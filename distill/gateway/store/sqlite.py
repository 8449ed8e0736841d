"""The answer store in SQLite: one file, any number of runs and processes.

WAL mode with `synchronous=FULL`: a commit is on disk when it returns, readers never wait for the writer, and what a
killed process left in the write-ahead log is taken up by the next one. One thread writes, in groups (`Writer`); reads
are lookups by key on a connection of the caller's thread (`SqlStore`). Bodies are stored as they came: compressing them
would be the dearest step of storing and replaying an answer.

Every row carries a CRC-32 of its body, because SQLite does not notice a changed byte inside a value. A row that fails
it counts as absent: its question is asked again and the answer replaces it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from distill.errors import RunError
from distill.gateway.store.known import KnownKeys
from distill.gateway.store.salvage import DAMAGED_NOTE, salvage
from distill.gateway.store.sql_store import SqlStore
from distill.gateway.store.sqlite_commit import SqliteCommitter
from distill.gateway.store.sqlite_schema import LOCK, SQLITE, Damage, configure, create, explain, is_damage
from distill.gateway.store.writer import Writer

__all__ = ["SqliteStore", "lock_store", "size_of"]

_CHECKED_BYTES = 256 * 1024 * 1024


class SqliteStore(SqlStore):
    """See `AnswerStore`. Open it with `open`; close it, or use it in a `with` statement."""

    def __init__(self, path: Path, reader: sqlite3.Connection, writer: Writer, known: KnownKeys, lock: int) -> None:
        super().__init__(SQLITE, writer, known)
        self.path = path
        self._reader = reader
        self._lock = lock

    @classmethod
    def open(cls, path: Path, *, max_bytes: int | None = None) -> SqliteStore:
        """Open or create the store at `path` (normally `<workspace>/.distill/answers.sqlite`).

        Args:
            max_bytes: refuse to grow the file beyond this, as a full disk would.

        Raises:
            StoreDamaged: it is damaged. What could be read of it was copied to a new store in its place, and the
                damaged file is kept beside it; the next call opens the new one.
            RunError: the folder cannot be written, the disk is full, another version wrote it.
        """
        lock = lock_store(path)
        reader: sqlite3.Connection | None = None
        writing: sqlite3.Connection | None = None
        try:
            try:
                writing = sqlite3.connect(path, timeout=30, isolation_level=None, check_same_thread=False)
                configure(writing, max_bytes)
                _check(writing, path)
                create(writing, path)
                reader = sqlite3.connect(path, timeout=30, isolation_level=None, check_same_thread=False)
                reader.execute("PRAGMA query_only=1")
                reader.execute("PRAGMA cache_size=-16384")
                committer = SqliteCommitter(writing, path)  # what is stored from now on is news
                known = KnownKeys()
                cursor = reader.execute("SELECT key FROM answers")
                while rows := cursor.fetchmany(50_000):
                    known.add_all(key for (key,) in rows)
            except sqlite3.Error as error:
                if not is_damage(error):
                    raise explain(error, path) from None
                _close(reader, writing)
                raise salvage(path, lock, reason=str(error)) from None
            return cls(path, reader, Writer(committer, known), known, lock)
        except BaseException:
            _close(reader, writing)
            os.close(lock)
            raise

    @property
    def where(self) -> str:
        """The file, for people."""
        return str(self.path)

    def size(self) -> int:
        """Bytes of the file and its write-ahead log."""
        return size_of(self.path)

    def close(self) -> None:
        """Write what is left and let go; safe to call twice."""
        if not self._closed:
            super().close()
            os.close(self._lock)

    def _stop_reading(self) -> None:
        self._reader.close()

    def _read(self, query: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        try:
            return self._reader.execute(query, parameters).fetchall()
        except sqlite3.Error as error:
            if is_damage(error):
                # Large stores are not checked at every start; this makes the next start check, and salvage.
                with contextlib.suppress(OSError):
                    self.path.with_name(DAMAGED_NOTE).touch()
            raise explain(error, self.path) from None


def size_of(path: Path) -> int:
    """Bytes on disk of the store at `path`, its log included; 0 where there is none."""
    total = 0
    for suffix in ("", "-wal"):
        with contextlib.suppress(FileNotFoundError):
            total += os.stat(f"{path}{suffix}").st_size
    return total


def lock_store(path: Path) -> int:
    """Make the folder and an empty file that only the user can read; returns a shared lock on the store."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        ignore = path.with_name(".gitignore")
        if not ignore.exists():
            ignore.write_text("*\n", "utf-8")
        os.close(os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600))
        lock = os.open(path.with_name(LOCK), os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise RunError(
            f"the answer store {path} cannot be opened: {error.strerror}",
            hint="Answers are stored before they are used, so the workspace must be a folder you can write to.",
        ) from None
    try:
        fcntl.flock(lock, fcntl.LOCK_SH)  # waits while another process salvages
    except OSError as error:
        os.close(lock)
        raise RunError(f"{path.parent} cannot be locked: {error.strerror}") from None
    return lock


def _check(connection: sqlite3.Connection, path: Path) -> None:
    note = path.with_name(DAMAGED_NOTE)
    if path.stat().st_size <= _CHECKED_BYTES or note.exists():
        found = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
        if found != "ok":
            raise Damage(found)
        note.unlink(missing_ok=True)


def _close(*connections: sqlite3.Connection | None) -> None:
    for connection in connections:
        if connection is not None:
            with contextlib.suppress(sqlite3.Error):
                connection.close()
