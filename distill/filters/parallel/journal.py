"""What a run that was broken off had already found out, so that the same command goes on instead of beginning anew.

A folder beside the results holds two things: what the first reading of the input found, and what the filters that
judge rows by themselves said, batch by batch, in a file that is only appended to. They are believed when the digest of
input, chain and everything that the chain names is the one they were made with. Filters that compare rows with each
other judge again, from the same rows in the same order; they are the cheap ones, or have a cache of their own
(embeddings). So the results of a run that was killed at any moment are those of one that was not, byte for byte.

A record counts when it is whole: its checksum is looked at, and what a kill or a power cut left of the last is cut off.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import struct
import time
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import orjson
import xxhash

from distill.errors import InputError
from distill.io import write_bytes

__all__ = ["Journal", "open_journal"]

_HEAD = struct.Struct("<4sIQQQQ")  # mark, segment, batch, digest of what was given, length, checksum
_MARK = b"dst1"
_EVERY = 2.0  # seconds between two flushes to disk; a kill of the process loses nothing, a power cut as much


class Journal:
    """What was said by segment and batch. Reads what an earlier run has left, and adds to it."""

    def __init__(self, folder: Path, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._folder, self._clock = folder, clock
        self._file = (folder / "verdicts.bin").open("a+b")
        self._places: dict[tuple[int, int, int], tuple[int, int]] = {}
        self._flushed = clock()
        self._load()
        self.found = len(self._places)
        """Records of earlier runs."""

    def get(self, segment: int, batch: int, given: int) -> bytes | None:
        """What was said, or None.

        Args:
            given: a digest of what the segments before had said of the batch.
        """
        place = self._places.get((segment, batch, given))
        return None if place is None else os.pread(self._file.fileno(), place[1], place[0])

    def add(self, segment: int, batch: int, given: int, said: bytes) -> None:
        """Keep what was said."""
        end = self._file.seek(0, os.SEEK_END)
        self._file.write(_HEAD.pack(_MARK, segment, batch, given, len(said), xxhash.xxh3_64_intdigest(said)) + said)
        self._file.flush()
        self._places[segment, batch, given] = end + _HEAD.size, len(said)
        if self._clock() - self._flushed > _EVERY:
            os.fsync(self._file.fileno())
            self._flushed = self._clock()

    def fact(self, name: str, make: Callable[[], Any]) -> Any:
        """A JSON value that takes long to find out, kept under a name."""
        path = self._folder / f"{name}.json"
        with contextlib.suppress(OSError, ValueError):
            return orjson.loads(path.read_bytes())
        write_bytes(path, orjson.dumps(make()))
        return orjson.loads(path.read_bytes())  # the same to the first run as to the next

    def close(self) -> None:
        self._file.close()

    def _load(self) -> None:
        descriptor, at = self._file.fileno(), 0
        size = os.fstat(descriptor).st_size
        while len(head := os.pread(descriptor, _HEAD.size, at)) == _HEAD.size:
            mark, segment, batch, given, length, checksum = _HEAD.unpack(head)
            begin = at + _HEAD.size
            if mark != _MARK or begin + length > size:
                break
            if xxhash.xxh3_64_intdigest(os.pread(descriptor, length, begin)) != checksum:
                break
            self._places[segment, batch, given] = begin, length
            at = begin + length
        os.ftruncate(descriptor, at)


@contextlib.contextmanager
def open_journal(folder: Path, key: Callable[[], str], note: Callable[[str], None]) -> Generator[Journal]:
    """The journal in `folder`, for a run whose input and chain have the digest `key`. Removed at a clean end.

    Raises:
        InputError: another process is at it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            hint = "wait for it to end, or name another folder with --out"
            raise InputError("another process filters into this folder", path=folder.parent, hint=hint) from None
        for left in (*folder.parent.glob(".kept.*.tmp"), *folder.parent.glob(".rejected.*.tmp")):
            left.unlink(missing_ok=True)  # of a run that was killed
        made_with, wanted = folder / "key", key()
        begun = made_with.exists()
        if not begun or made_with.read_text("utf-8", "replace") != wanted:
            if begun:
                note("the input or the chain is not what it was when the run here was broken off: begun anew")
            for left in (*folder.glob("*.json"), *folder.glob("*.bin"), made_with):
                left.unlink(missing_ok=True)
            write_bytes(made_with, wanted.encode())
        journal = Journal(folder)
        if journal.found:
            note(f"goes on from a run that was broken off: {journal.found:,} batches of verdicts are there already")
        try:
            yield journal
        except InputError:  # another input or chain it must be: nothing here is of use to that
            shutil.rmtree(folder)
            raise
        finally:
            journal.close()
        shutil.rmtree(folder)
