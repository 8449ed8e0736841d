"""The answer store in SQLite: one file, any number of runs and processes.

WAL mode with `synchronous=FULL`: a commit is on disk when it returns, readers never wait for the writer, and what a
killed process left in the write-ahead log is taken up by the next one. One thread writes, in groups (`Writer`); reads
are lookups by key on a connection of the caller's thread, after a filter in memory has said that they may succeed, and
take the rows that follow along (`ReadAhead`). Bodies are stored as they came: compressing them would be the dearest
step of storing and replaying an answer.

Every row carries a CRC-32 of its body, because SQLite does not notice a changed byte inside a value. A row that fails
it counts as absent: its question is asked again and the answer replaces it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import sqlite3
import zlib
from decimal import Decimal
from pathlib import Path

from distill.errors import RunError
from distill.gateway.ahead import AHEAD, ReadAhead
from distill.gateway.budget import Amount
from distill.gateway.known import KnownKeys
from distill.gateway.money import usd
from distill.gateway.salvage import DAMAGED_NOTE, salvage
from distill.gateway.schema import COLUMNS, LOCK, Damage, configure, create, explain, is_damage
from distill.gateway.sqlite_commit import SqliteCommitter
from distill.gateway.store import Record, Spent, StoreStats
from distill.gateway.writer import Writer

__all__ = ["SqliteStore", "lock_store", "size_of"]

_CHECKED_BYTES = 256 * 1024 * 1024
_SELECT = f"SELECT {COLUMNS}, crc, id FROM answers WHERE key = ?"  # noqa: S608 - constant
_NEXT = f"SELECT key, {COLUMNS}, crc FROM answers WHERE id > ? AND id <= ?"  # noqa: S608 - constant


class SqliteStore:
    """See `AnswerStore`. Open it with `open`; close it, or use it in a `with` statement."""

    def __init__(self, path: Path, reader: sqlite3.Connection, writer: Writer, known: KnownKeys, lock: int) -> None:
        self.path = path
        self._reader = reader
        self._writer = writer
        self._known = known
        self._lock = lock
        self._closed = False
        self._ahead = ReadAhead()

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
                known = KnownKeys()
                cursor = reader.execute("SELECT key FROM answers")
                while rows := cursor.fetchmany(50_000):
                    known.add_all(key for (key,) in rows)
            except sqlite3.Error as error:
                if not is_damage(error):
                    raise explain(error, path) from None
                _close(reader, writing)
                raise salvage(path, lock, reason=str(error)) from None
            return cls(path, reader, Writer(SqliteCommitter(writing, path), known), known, lock)
        except BaseException:
            _close(reader, writing)
            os.close(lock)
            raise

    @property
    def where(self) -> str:
        """The file, for people."""
        return str(self.path)

    def get(self, key: str) -> Record | None:
        """The answer, or None."""
        if not self._known.maybe(key):
            return None
        wanted = bytes.fromhex(key)
        row = self._ahead.take(wanted)
        if row is None:
            try:
                found = self._reader.execute(_SELECT, (wanted,)).fetchone()
                if found is None:
                    return None
                row, place = found[:-1], found[-1]
                if self._ahead.follows(place):
                    self._ahead.hold(self._reader.execute(_NEXT, (place, place + AHEAD)), place + AHEAD)
            except sqlite3.Error as error:
                raise self._broken(error) from None
        return Record(key, *row[:-1]) if zlib.crc32(row[4]) == row[-1] else None

    async def put(self, record: Record, *, replace: bool = False) -> Record:
        """Returns once the answer is on disk."""
        self._ahead.take(bytes.fromhex(record.key))  # it may be replaced
        return await self._writer.put(record, replace=replace)

    def lose(self, run: str, amount: Amount) -> None:
        """Note what a call without an answer may have cost."""
        self._writer.lose(run, amount)

    async def expose(self, run: str, amount: Amount) -> None:
        """Returns once it is on disk what calls under way may cost."""
        await self._writer.expose(run, amount)

    def relax(self, run: str, amount: Amount) -> None:
        """Lower what `expose` has set."""
        self._writer.relax(run, amount)

    def recover(self, run: str) -> Amount:
        """What an earlier session of the run left exposed is lost from now on."""
        self._writer.drain()
        exposed = self._one("SELECT exposed_pico, exposed_tokens FROM runs WHERE run = ?", run)
        amount = Amount(*exposed) if exposed else Amount()
        if amount != Amount():
            self._writer.lose(run, amount, recovered=True)
            self._writer.drain()
        return amount

    def spent(self, run: str) -> Spent:
        """What the run paid for answers."""
        paid, _ = self.amounts(run)
        return Spent(paid.usd, paid.tokens)

    def amounts(self, run: str) -> tuple[Amount, Amount]:
        """What the run paid for answers, and what lost calls may have cost."""
        row = self._one("SELECT pico, input + output, lost_pico, lost_tokens FROM runs WHERE run = ?", run)
        return (Amount(row[0], row[1]), Amount(row[2], row[3])) if row else (Amount(), Amount())

    def used_since(self, provider: str, model: str, since: float) -> list[tuple[float, int, int]]:
        """What a model has answered from Unix time `since` on, in slices of ten minutes."""
        query = (
            "SELECT CAST(created / 600 AS INTEGER) * 600.0, count(*), sum(input + output) FROM answers"
            " WHERE created >= ? AND provider = ? AND model = ? GROUP BY 1 ORDER BY 1"
        )
        try:
            return self._reader.execute(query, (since, provider, model)).fetchall()
        except sqlite3.Error as error:
            raise self._broken(error) from None

    def stats(self) -> StoreStats:
        """Counts and sums over all runs."""
        try:
            models = self._reader.execute(
                "SELECT provider || '/' || model, count(*), sum(finish = '') FROM answers GROUP BY 1 ORDER BY 1"
            ).fetchall()
        except sqlite3.Error as error:
            raise self._broken(error) from None
        totals = self._one(
            "SELECT coalesce(sum(pico), 0), coalesce(sum(input + output), 0) FROM runs WHERE run != ?", ""
        )
        pico, tokens = totals or (0, 0)
        return StoreStats(
            answers=sum(count for _, count, _ in models),
            refusals=sum(refused for _, _, refused in models),
            bytes=self.size(),
            cost=usd(pico) if pico else Decimal(0),
            tokens=tokens,
            models={name: count for name, count, _ in models},
        )

    def size(self) -> int:
        """Bytes of the file and its write-ahead log."""
        return size_of(self.path)

    @property
    def unsaved(self) -> int:
        """Answers that still wait for the disk."""
        return self._writer.unsaved

    async def flush(self, timeout: float) -> int:  # noqa: ASYNC109 - part of the store's contract
        """Wait until everything is on disk; returns the number of answers that are not."""
        return await self._writer.flush(timeout)

    def close(self) -> None:
        """Write what is left and let go; safe to call twice."""
        if self._closed:
            return
        self._closed = True
        self._reader.close()
        self._writer.close()
        os.close(self._lock)

    def __enter__(self) -> SqliteStore:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _one(self, query: str, run: str) -> tuple[int, ...] | None:
        try:
            return self._reader.execute(query, (run,)).fetchone()
        except sqlite3.Error as error:
            raise self._broken(error) from None

    def _broken(self, error: sqlite3.Error) -> RunError:
        if is_damage(error):
            # Large stores are not checked at every start; this makes the next start check, and salvage.
            with contextlib.suppress(OSError):
                self.path.with_name(DAMAGED_NOTE).touch()
        return explain(error, self.path)


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
