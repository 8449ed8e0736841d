"""What was or may have been submitted as a batch: written down before it is sent, struck out when its answers are
stored.

One SQLite file beside the answer store (`.distill/batches.sqlite`), WAL with `synchronous=FULL`: when a method
returns, it is on disk. A batch goes

    intended -> submitted -> (its answers stored) -> closed
             -> void

`intended` says that it may exist at the provider or not: only the provider knows, and is asked. Nothing here is ever
needed to read an answer; it is what keeps a paid batch from being forgotten or sent again.

The batches of a run belong to the process that holds the run's lock here; those of runs that nobody holds are taken up
by whoever uses the same account and model.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import hashlib
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Literal, NamedTuple, TypeVar

from distill.errors import RunError
from distill.gateway.budget import Amount
from distill.gateway.store.sqlite_schema import configure, explain

__all__ = ["BatchLedger", "Entry", "Member"]

T = TypeVar("T")

_TABLES = """
CREATE TABLE IF NOT EXISTS batches (
    ref TEXT PRIMARY KEY,         -- ours: stands in the provider's metadata and before every custom id
    account TEXT NOT NULL,        -- provider and host
    model TEXT NOT NULL,
    run TEXT NOT NULL,            -- who pays
    state TEXT NOT NULL,          -- intended, submitted, closed, void
    requests INTEGER NOT NULL,
    batch TEXT NOT NULL DEFAULT '',  -- the provider's name for it
    created REAL NOT NULL,        -- Unix time
    note TEXT NOT NULL DEFAULT ''
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS members (
    ref TEXT NOT NULL,
    key BLOB NOT NULL,            -- the answer's key
    sample INTEGER NOT NULL,
    size INTEGER NOT NULL,        -- bytes of the wire payload
    pico INTEGER NOT NULL,        -- the most it can cost
    tokens INTEGER NOT NULL,
    PRIMARY KEY (ref, key)
) WITHOUT ROWID;
"""
_ENTRY = "ref, account, model, run, state, requests, batch, created"

State = Literal["intended", "submitted", "closed", "void"]


class Member(NamedTuple):
    """One request of a batch."""

    key: str
    sample: int
    size: int
    worst: Amount


class Entry(NamedTuple):
    """One batch as written down."""

    ref: str
    account: str
    model: str
    run: str
    state: State
    requests: int
    batch: str
    created: float


class BatchLedger:
    """Open it with `open`; close it, or use it in a `with`. Methods with `async` return when it is on disk."""

    def __init__(self, path: Path, connection: sqlite3.Connection) -> None:
        self.path = path
        self.folder = path.with_name("batches")
        """Input and result files of batches under way."""
        self._connection = connection
        self._turn = threading.Lock()
        self._held: dict[str, int] = {}

    @classmethod
    def open(cls, path: Path) -> BatchLedger:
        """Open or create the ledger at `path` (normally `<workspace>/.distill/batches.sqlite`).

        Raises:
            RunError: it cannot be written, or is damaged.
        """
        try:
            path.with_name("batches").mkdir(parents=True, exist_ok=True)
            os.close(os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600))
            connection = sqlite3.connect(path, timeout=30, isolation_level=None, check_same_thread=False)
            configure(connection)
            connection.executescript(f"BEGIN IMMEDIATE;\n{_TABLES}\nCOMMIT;")
        except sqlite3.Error as error:
            raise _explain(error, path) from None
        except OSError as error:
            raise RunError(f"the batch ledger {path} cannot be opened: {error.strerror}") from None
        return cls(path, connection)

    # -- whose batches ---------------------------------------------------------------------------------------------

    def take(self, run: str) -> bool:
        """Hold the batches of a run for this process; False when another one holds them. The kernel frees them when
        the process ends, however it ends."""
        if run in self._held:
            return True
        name = hashlib.blake2b(run.encode(), digest_size=8).hexdigest()
        lock = os.open(self.folder / f"{name}.lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(lock)
            return False
        self._held[run] = lock
        return True

    def open_entries(self, account: str, model: str) -> list[Entry]:
        """Batches of an account and model that may hold unread answers, oldest first."""
        return self._read(
            lambda connection: [
                Entry(*row)
                for row in connection.execute(
                    f"SELECT {_ENTRY} FROM batches WHERE account = ? AND model = ?"  # noqa: S608 - constant
                    " AND state IN ('intended', 'submitted') ORDER BY created",
                    (account, model),
                )
            ]
        )

    def members(self, ref: str) -> list[Member]:
        """The requests of a batch that is not closed."""
        return self._read(
            lambda connection: [
                Member(key.hex(), sample, size, Amount(pico, tokens))
                for key, sample, size, pico, tokens in connection.execute(
                    "SELECT key, sample, size, pico, tokens FROM members WHERE ref = ?", (ref,)
                )
            ]
        )

    def known(self) -> set[str]:
        """The provider's names of all batches ever written down."""
        return self._read(
            lambda connection: {name for (name,) in connection.execute("SELECT batch FROM batches WHERE batch != ''")}
        )

    # -- the road of a batch ---------------------------------------------------------------------------------------

    async def intend(self, ref: str, account: str, model: str, run: str, members: Iterable[Member]) -> Entry:
        """From now on the batch may exist."""
        rows = [(ref, bytes.fromhex(m.key), m.sample, m.size, m.worst.pico, m.worst.tokens) for m in members]
        entry = Entry(ref, account, model, run, "intended", len(rows), "", time.time())

        def work(connection: sqlite3.Connection) -> None:
            connection.execute(f"INSERT INTO batches ({_ENTRY}) VALUES (?, ?, ?, ?, ?, ?, ?, ?)", entry)  # noqa: S608
            connection.executemany("INSERT INTO members VALUES (?, ?, ?, ?, ?, ?)", rows)

        await self._write(work)
        return entry

    async def submitted(self, entry: Entry, batch: str) -> Entry:
        """The provider has it, under this name."""
        await self._write(
            lambda connection: connection.execute(
                "UPDATE batches SET state = 'submitted', batch = ? WHERE ref = ?", (batch, entry.ref)
            )
        )
        return entry._replace(state="submitted", batch=batch)

    async def close_entry(self, entry: Entry, note: str, *, void: bool = False) -> None:
        """Its answers are stored (or, `void`, it never came to be): nothing of it is open any more."""

        def work(connection: sqlite3.Connection) -> None:
            state = "void" if void else "closed"
            connection.execute("UPDATE batches SET state = ?, note = ? WHERE ref = ?", (state, note, entry.ref))
            connection.execute("DELETE FROM members WHERE ref = ?", (entry.ref,))

        await self._write(work)

    def close(self) -> None:
        """Let go of the file and of all runs; safe to call twice."""
        with self._turn:
            self._connection.close()
        for lock in self._held.values():
            os.close(lock)
        self._held.clear()

    def __enter__(self) -> BatchLedger:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _read(self, work: Callable[[sqlite3.Connection], T]) -> T:
        try:
            with self._turn:
                return work(self._connection)
        except sqlite3.Error as error:
            raise _explain(error, self.path) from None

    async def _write(self, work: Callable[[sqlite3.Connection], object]) -> None:
        def transaction() -> None:
            with self._turn:
                self._connection.execute("BEGIN IMMEDIATE")
                try:
                    work(self._connection)
                    self._connection.execute("COMMIT")
                except BaseException:
                    with contextlib.suppress(sqlite3.Error):
                        self._connection.execute("ROLLBACK")
                    raise

        try:
            await asyncio.to_thread(transaction)
        except sqlite3.Error as error:
            raise _explain(error, self.path) from None


def _explain(error: sqlite3.Error, path: Path) -> RunError:
    said = explain(error, path)
    return RunError(
        said.message.replace("answer store", "batch ledger"),
        hint="Make room or mend the disk, then run the same command again. Should the ledger itself be damaged: batches"
        " under way are listed by the provider, and without the ledger they would be sent again.",
    )
