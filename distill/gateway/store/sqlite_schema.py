"""The tables of the SQLite store, how connections to it are set, and what SQLite's errors mean for a user."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from distill.errors import RunError, StoreDamaged
from distill.gateway.store.dialect import COLUMNS, Dialect

__all__ = ["INSERT", "LOCK", "REQUEST", "SQLITE", "Damage", "configure", "create", "explain", "is_damage"]

VERSION = 2
LOCK = "answers.lock"

_TABLES = """
-- The body stands last, so that sums over the other columns do not read it.
CREATE TABLE IF NOT EXISTS answers (
    id INTEGER PRIMARY KEY,
    key BLOB NOT NULL,            -- 16 bytes: BLAKE2b of the wire payload, the provider and the sample number
    provider TEXT NOT NULL,
    model TEXT NOT NULL,
    sample INTEGER NOT NULL,
    status INTEGER NOT NULL,      -- HTTP status
    input INTEGER NOT NULL,       -- tokens; cached and cache_write are parts of input, reasoning of output
    output INTEGER NOT NULL,
    cached INTEGER NOT NULL,
    cache_write INTEGER NOT NULL,
    reasoning INTEGER NOT NULL,
    cost_pico INTEGER NOT NULL,   -- 1e-12 USD
    finish TEXT NOT NULL,         -- empty: a permanent refusal
    run TEXT NOT NULL,            -- who paid
    created REAL NOT NULL,        -- Unix time
    crc INTEGER NOT NULL,         -- CRC-32 of the body
    body BLOB NOT NULL            -- as it came over the wire
);
CREATE UNIQUE INDEX IF NOT EXISTS answers_key ON answers (key);
-- What was asked, apart from what a replay reads. Answers stored before version 2 have none.
CREATE TABLE IF NOT EXISTS requests (
    id INTEGER PRIMARY KEY,       -- of the answer
    wire BLOB NOT NULL            -- canonical JSON
);
-- One line a run, kept in the same transactions. It also counts answers that were paid twice and stored once.
CREATE TABLE IF NOT EXISTS runs (
    run TEXT PRIMARY KEY,
    answers INTEGER NOT NULL DEFAULT 0,
    pico INTEGER NOT NULL DEFAULT 0,
    input INTEGER NOT NULL DEFAULT 0,
    output INTEGER NOT NULL DEFAULT 0,
    lost_pico INTEGER NOT NULL DEFAULT 0,      -- what calls that brought no answer may have cost
    lost_tokens INTEGER NOT NULL DEFAULT 0,
    exposed_pico INTEGER NOT NULL DEFAULT 0,   -- what the calls under way may cost; not zero when nobody runs: lost
    exposed_tokens INTEGER NOT NULL DEFAULT 0
) WITHOUT ROWID;
"""

SQLITE = Dialect(tables="", mark="?", larger="max", floor="CAST({} AS INTEGER)")
INSERT = f"INTO answers (key, {COLUMNS}, crc) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
REQUEST = "INSERT OR REPLACE INTO requests (id, wire) VALUES (?, ?)"
_DAMAGE = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}


class Damage(sqlite3.DatabaseError):
    """What a check of ours found."""


def configure(connection: sqlite3.Connection, max_bytes: int | None = None) -> None:
    """Set up the connection that writes."""
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
    if max_bytes is not None:
        page = connection.execute("PRAGMA page_size").fetchone()[0]
        connection.execute(f"PRAGMA max_page_count={max(1, max_bytes // page)}")


def create(connection: sqlite3.Connection, path: Path) -> None:
    """Make the tables, or check that they are ours.

    Raises:
        RunError: a later version of distill wrote the store.
    """
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if version > VERSION:
        raise RunError(
            f"the answer store {path} was written by a later version of distill (format {version}, known: {VERSION})",
            hint="Update distill, or use another workspace.",
        )
    if version < VERSION:
        connection.executescript(f"BEGIN IMMEDIATE;\n{_TABLES}\nPRAGMA user_version={VERSION};\nCOMMIT;")


def is_damage(error: BaseException) -> bool:
    """Whether the file's content is broken, as opposed to the disk, the folder or the moment."""
    return isinstance(error, Damage) or getattr(error, "sqlite_errorcode", 0) & 0xFF in _DAMAGE


def explain(error: sqlite3.Error, path: Path) -> RunError:
    """The error that a user meets."""
    if is_damage(error):
        return StoreDamaged(
            f"the answer store {path} is damaged: {error}",
            hint="Run the same command again: what can be read is then copied to a new store, the old file is kept.",
        )
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code == sqlite3.SQLITE_FULL:
        return RunError(
            f"the disk is full: the answer store {path} cannot grow",
            hint="Make room and run the same command again; answers stored so far are kept.",
        )
    if code in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM):
        return RunError(
            f"the answer store {path} cannot be written: {error}",
            hint="Answers are stored before they are used, so the workspace must be a folder you can write to.",
        )
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return RunError(
            f"the answer store {path} is held by another process: {error}",
            hint="Several runs may share a store, but something keeps it locked for long; close other programs on it.",
        )
    if code == sqlite3.SQLITE_IOERR:
        return RunError(
            f"the answer store {path} cannot be read or written: {error}",
            hint="Is the disk full? Make room and run the same command again; answers stored so far are kept.",
        )
    return RunError(f"the answer store {path} cannot be used: {error}", hint="Check the disk, then run it again.")
