"""What can still be read of a damaged answer store is copied to a new one; the damaged files are kept.

SQLite stores rows in pages, so damage is local: rows are walked in the order of their numbers, a page that cannot be
read is stepped over, and every body is checked against its CRC. It happens by itself when a store is opened and fails
its check, but only where no other process has the store open, and never in silence: the call that did it ends with
`StoreDamaged`, which says what was kept and where the rest lies; the next call works with the new store.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import sqlite3
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from distill.errors import RunError, StoreDamaged
from distill.gateway.store.dialect import COLUMNS
from distill.gateway.store.sqlite_schema import INSERT, REQUEST, configure, create

__all__ = ["DAMAGED_NOTE", "recover_rows", "salvage"]

DAMAGED_NOTE = "answers.damaged"
"""Stands beside a store in which reading met damage: the next start checks it whole."""

_FURTHEST = 100_000_000
_PROBES = 200_000


def salvage(path: Path, lock: int, *, reason: str) -> StoreDamaged:
    """Put a new store with everything readable in the place of the damaged one at `path`.

    Args:
        lock: descriptor of the store's lock file, held shared by the caller.

    Returns:
        The error to raise: it says how many answers were recovered and where the damaged file is.

    Raises:
        StoreDamaged: another process uses the store; nothing was touched.
        RunError: there is no room for a copy.
    """
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return StoreDamaged(
            f"the answer store {path} is damaged ({reason}), and another process is using it",
            hint="Stop the other run, then run the same command again: what can be read will be recovered.",
        )
    kept = path.with_name(f"damaged-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}")
    fresh = path.with_name(f".{path.name}.{os.getpid()}.new")
    try:
        kept.mkdir(mode=0o700)
        for suffix in ("", "-wal", "-shm"):
            with contextlib.suppress(FileNotFoundError):
                shutil.copy2(f"{path}{suffix}", kept / f"{path.name}{suffix}")
        recovered = recover_rows(kept / path.name, fresh)
        # The old log must go before the new file comes: SQLite would replay it into the wrong database.
        for suffix in ("-wal", "-shm"):
            Path(f"{path}{suffix}").unlink(missing_ok=True)
        os.replace(fresh, path)
        path.with_name(DAMAGED_NOTE).unlink(missing_ok=True)
    except (OSError, sqlite3.Error) as error:
        for suffix in ("", "-wal", "-shm"):
            Path(f"{fresh}{suffix}").unlink(missing_ok=True)
        raise RunError(
            f"the answer store {path} is damaged ({reason}) and could not be recovered: {error}",
            hint="Make room on the disk (a copy is needed) and run the same command again.",
        ) from None
    return StoreDamaged(
        f"the answer store {path} was damaged ({reason}): {recovered:,} answers were recovered to a new store",
        hint=f"The damaged file is kept in {kept}. Run the same command again to go on; what was lost is asked again.",
    )


def recover_rows(damaged: Path, fresh: Path) -> int:
    """Copy every readable, sound answer of `damaged` to a new store at `fresh`; returns their number."""
    os.close(os.open(fresh, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
    target = sqlite3.connect(fresh, isolation_level=None)
    source = sqlite3.connect(damaged, isolation_level=None)
    try:
        source.execute("PRAGMA writable_schema=ON")  # read also a file that is shorter than its header says
        configure(target)
        create(target, fresh)
        target.execute("BEGIN")
        count = 0
        for key, *values, crc in _rows(source):
            if isinstance(key, bytes) and len(key) == 16 and zlib.crc32(values[4]) == crc:
                with contextlib.suppress(sqlite3.IntegrityError, TypeError):
                    count += target.execute("INSERT OR IGNORE " + INSERT, (key, *values, crc)).rowcount
        _copy_requests(source, target)
        _copy_totals(source, target)
        target.execute("COMMIT")
        target.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        return count
    finally:
        source.close()
        target.close()


def _rows(source: sqlite3.Connection) -> Iterator[tuple[Any, ...]]:
    """Every row that can be read, stepping over those that cannot."""
    query = f"SELECT id, key, {COLUMNS}, crc FROM answers NOT INDEXED WHERE id > ? ORDER BY id"  # noqa: S608
    last, step = 0, 1
    skipped: list[range] = []
    while last < _FURTHEST:
        try:
            for number, *row in source.execute(query, (last,)):
                last, step = number, 1
                if isinstance(row[5], bytes):
                    yield tuple(row)
            break
        except (sqlite3.Error, UnicodeDecodeError) as error:
            if getattr(error, "sqlite_errorcode", 0) & 0xFF in (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR):
                return  # no database, or no such table: nothing to walk
            skipped.append(range(last + 1, last + 1 + step))
            last += step
            step = min(2 * step, 1_000_000)
    yield from _probe(source, skipped)


def _probe(source: sqlite3.Connection, skipped: list[range]) -> Iterator[tuple[Any, ...]]:
    """Rows between those that were stepped over, one by one."""
    query = f"SELECT key, {COLUMNS}, crc FROM answers NOT INDEXED WHERE id = ?"  # noqa: S608
    left = _PROBES
    for numbers in skipped:
        for number in numbers[: max(0, left)]:
            with contextlib.suppress(sqlite3.Error, UnicodeDecodeError):
                row = source.execute(query, (number,)).fetchone()
                if row is not None and isinstance(row[5], bytes):
                    yield row
        left -= len(numbers)


def _copy_requests(source: sqlite3.Connection, target: sqlite3.Connection) -> None:
    """What was asked, for the answers that are there now; as far as it can be read."""
    numbers = dict(target.execute("SELECT key, id FROM answers"))
    with contextlib.suppress(sqlite3.Error):
        for key, wire in source.execute("SELECT key, wire FROM requests JOIN answers USING (id)"):
            if key in numbers and isinstance(wire, bytes):
                target.execute(REQUEST, (numbers[key], wire))


def _copy_totals(source: sqlite3.Connection, target: sqlite3.Connection) -> None:
    """What each run spent: as it was written down, else the sum of what was recovered."""
    target.execute(
        "INSERT INTO runs (run, answers, pico, input, output)"
        " SELECT run, count(*), sum(cost_pico), sum(input), sum(output) FROM answers GROUP BY run"
    )
    with contextlib.suppress(sqlite3.Error, UnicodeDecodeError):
        for row in source.execute(
            "SELECT run, answers, pico, input, output, lost_pico, lost_tokens, exposed_pico, exposed_tokens FROM runs"
        ):
            target.execute("INSERT OR REPLACE INTO runs VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", row)
