"""The one thread that writes to the answer store: whatever is queued becomes one transaction.

A commit costs a disk flush, whether it holds one answer or a thousand; so while one is under way the next batch
gathers. A batch is told about in one call to the event loop. When the disk refuses, those who wait are told at once
(the run stops), but the answers stay in memory and are tried again until the store is closed: they are paid.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import sqlite3
import threading
import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distill.errors import RunError
from distill.gateway.budget import Amount
from distill.gateway.known import KnownKeys
from distill.gateway.schema import COLUMNS, INSERT, explain
from distill.gateway.store import Record

__all__ = ["Writer"]

_MOST = 2_000
_GATHER_S = 0.002
_AGAIN_S = 0.5

_UPSERT = """
INSERT INTO runs (run, answers, pico, input, output) VALUES (?, ?, ?, ?, ?)
ON CONFLICT (run) DO UPDATE SET answers = answers + excluded.answers, pico = pico + excluded.pico,
    input = input + excluded.input, output = output + excluded.output"""
_LOSE = """
INSERT INTO runs (run, lost_pico, lost_tokens) VALUES (?, ?, ?)
ON CONFLICT (run) DO UPDATE SET lost_pico = lost_pico + excluded.lost_pico,
    lost_tokens = lost_tokens + excluded.lost_tokens"""
_EXPOSE = """
INSERT INTO runs (run, exposed_pico, exposed_tokens) VALUES (?, ?, ?)
ON CONFLICT (run) DO UPDATE SET exposed_pico = excluded.exposed_pico, exposed_tokens = excluded.exposed_tokens"""
_STANDING = f"SELECT {COLUMNS}, crc FROM answers WHERE key = ?"  # noqa: S608 - constant


@dataclass(slots=True)
class _Put:
    record: Record
    replace: bool
    future: asyncio.Future[Record] | None


@dataclass(slots=True)
class _Lose:
    run: str
    amount: Amount
    recovered: bool


@dataclass(slots=True)
class _Expose:
    run: str
    amount: Amount
    future: asyncio.Future[None] | None


@dataclass(slots=True)
class _Marker:
    done: Callable[[], None]


_Item = _Put | _Lose | _Expose | _Marker


class Writer:
    """Owns `connection` from now on."""

    def __init__(self, connection: sqlite3.Connection, path: Path, known: KnownKeys) -> None:
        self._connection = connection
        self._path = path
        self._known = known
        self._queue: queue.SimpleQueue[_Item | None] = queue.SimpleQueue()
        self._held: list[_Item] = []
        self._queued = 0
        self._settled = 0
        self._seen_version = self._data_version()
        self._seen_id = self._last_id()
        self._closing = False
        self._thread = threading.Thread(target=self._work, name="distill-answers", daemon=True)
        self._thread.start()

    @property
    def unsaved(self) -> int:
        """Answers that are not on disk yet."""
        return self._queued - self._settled

    async def put(self, record: Record, *, replace: bool) -> Record:
        future: asyncio.Future[Record] = asyncio.get_running_loop().create_future()
        self._queued += 1
        self._queue.put(_Put(record, replace, future))
        return await future

    def lose(self, run: str, amount: Amount, *, recovered: bool = False) -> None:
        self._queue.put(_Lose(run, amount, recovered))

    async def expose(self, run: str, amount: Amount) -> None:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._queue.put(_Expose(run, amount, future))
        await future

    def relax(self, run: str, amount: Amount) -> None:
        self._queue.put(_Expose(run, amount, None))

    def drain(self) -> None:
        """Block until what is queued now has been tried."""
        done = threading.Event()
        self._queue.put(_Marker(done.set))
        done.wait()

    async def flush(self, timeout: float) -> int:  # noqa: ASYNC109 - part of the store's contract
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout
        while True:
            await self._tried(loop)
            # A slow disk is waited for; only one that refuses is given up.
            if not self.unsaved or loop.time() >= deadline:
                return self.unsaved
            await asyncio.sleep(min(_AGAIN_S, timeout) / 5)

    async def _tried(self, loop: asyncio.AbstractEventLoop) -> None:
        """Wait until what is queued now has been tried."""
        done = asyncio.Event()

        def tell() -> None:
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(done.set)

        self._queue.put(_Marker(tell))
        await done.wait()

    def close(self) -> None:
        """Try once more to write what is left, then end."""
        if not self._closing:
            self._closing = True
            self._queue.put(None)
        self._thread.join()

    # -- in the thread ------------------------------------------------------------------------------------------

    def _work(self) -> None:
        going = True
        while going:
            batch, going = self._gather()
            batch = [*self._held, *batch]
            self._held = []
            markers = [item for item in batch if isinstance(item, _Marker)]
            work: list[_Item] = [item for item in batch if not isinstance(item, _Marker)]
            if work:
                self._write(work)
            for marker in markers:
                marker.done()
        with contextlib.suppress(sqlite3.Error):
            self._connection.close()

    def _gather(self) -> tuple[list[_Item], bool]:
        batch: list[_Item] = []
        try:
            item = self._queue.get(timeout=_AGAIN_S if self._held else None)
            if isinstance(item, _Put) and self._queue.empty():
                time.sleep(_GATHER_S)  # answers come in company; a flush each would cost more than this wait
            while True:
                if item is None:
                    return batch, False
                batch.append(item)
                if len(batch) >= _MOST:
                    return batch, True
                item = self._queue.get_nowait()
        except queue.Empty:
            return batch, True

    def _write(self, work: list[_Item]) -> None:
        try:
            results = self._transaction(work)
        except sqlite3.Error as error:
            with contextlib.suppress(sqlite3.Error):
                self._connection.rollback()
            self._hold(work, explain(error, self._path))
            return
        self._settled += len(results)
        self._notice_others()
        _tell([(put.future, record) for put, record in results] + _exposed(work), None)

    def _transaction(self, work: list[_Item]) -> list[tuple[_Put, Record]]:
        connection = self._connection
        results: list[tuple[_Put, Record]] = []
        totals: dict[str, list[int]] = {}
        connection.execute("BEGIN IMMEDIATE")
        for item in work:
            match item:
                case _Put():
                    results.append((item, self._insert(item)))
                    record = item.record
                    total = totals.setdefault(record.run, [0, 0, 0, 0])
                    total[0] += 1
                    total[1] += record.cost_pico
                    total[2] += record.input
                    total[3] += record.output
                case _Lose():
                    connection.execute(_LOSE, (item.run, item.amount.pico, item.amount.tokens))
                    if item.recovered:
                        connection.execute(_EXPOSE, (item.run, 0, 0))
                case _Expose():
                    connection.execute(_EXPOSE, (item.run, item.amount.pico, item.amount.tokens))
                case _Marker():
                    pass
        for run, total in totals.items():
            connection.execute(_UPSERT, (run, *total))
        connection.execute("COMMIT")
        for item, _ in results:
            self._known.add(item.record.key)
        return results

    def _insert(self, item: _Put) -> Record:
        """Store one answer; returns the one that stands there afterwards."""
        record = item.record
        key = bytes.fromhex(record.key)
        values = (key, *record[1:], zlib.crc32(record.body))
        verb = "INSERT OR REPLACE " if item.replace else "INSERT OR IGNORE "
        if self._connection.execute(verb + INSERT, values).rowcount:
            return record
        row = self._connection.execute(_STANDING, (key,)).fetchone()
        if zlib.crc32(row[4]) == row[-1]:
            return Record(record.key, *row[:-1])
        self._connection.execute("INSERT OR REPLACE " + INSERT, values)
        return record

    def _hold(self, work: list[_Item], error: RunError) -> None:
        """Keep the batch for another attempt, and tell those who wait that there is trouble."""
        waiting: list[tuple[asyncio.Future[Any] | None, Any]] = []
        for item in work:
            if isinstance(item, _Put | _Expose):
                waiting.append((item.future, None))
                item.future = None
        # An exposure that nobody waits for any more must not overwrite a later one.
        self._held = [item for item in work if not isinstance(item, _Expose)]
        _tell(waiting, error)

    def _notice_others(self) -> None:
        """Learn the keys of answers that other processes have stored."""
        try:
            version = self._data_version()
            if version != self._seen_version:
                self._seen_version = version
                rows = self._connection.execute("SELECT key FROM answers WHERE id > ?", (self._seen_id,)).fetchall()
                self._known.add_all(key for (key,) in rows)
                self._seen_id = self._last_id()
        except sqlite3.Error:
            pass  # the next write will meet the same trouble and report it

    def _data_version(self) -> int:
        return self._connection.execute("PRAGMA data_version").fetchone()[0]

    def _last_id(self) -> int:
        return self._connection.execute("SELECT coalesce(max(id), 0) FROM answers").fetchone()[0]


def _exposed(work: list[_Item]) -> list[tuple[asyncio.Future[Any] | None, Any]]:
    return [(item.future, None) for item in work if isinstance(item, _Expose)]


def _tell(results: list[tuple[asyncio.Future[Any] | None, Any]], error: RunError | None) -> None:
    """Resolve futures on their event loop, all in one call."""
    by_loop: dict[asyncio.AbstractEventLoop, list[tuple[asyncio.Future[Any], Any]]] = {}
    for future, value in results:
        if future is not None:
            by_loop.setdefault(future.get_loop(), []).append((future, value))
    for loop, pairs in by_loop.items():
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits
            loop.call_soon_threadsafe(_resolve, pairs, error)


def _resolve(pairs: list[tuple[asyncio.Future[Any], Any]], error: RunError | None) -> None:
    for future, value in pairs:
        if future.done():
            continue
        if error is None:
            future.set_result(value)
        else:
            future.set_exception(type(error)(error.message, hint=error.hint))
