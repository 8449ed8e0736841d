"""Digests that were seen, twenty bytes each, where a dictionary needs two hundred and fifty.

New ones stand in a dictionary; when that is full they become a sorted array, and arrays of like size are merged.
A batch is looked up in all arrays at once by binary search.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["Digests"]

U64 = NDArray[np.uint64]

_NEW = 1 << 16
_LARGE = 1 << 22  # entries from which arrays are not merged any more: a merge needs room for both
_NONE = bytes(16)


class _Level(NamedTuple):
    """Digests in order: their two halves, and the number under which each was added."""

    high: U64
    low: U64
    number: NDArray[np.uint32]


class Digests:
    """128-bit digests and their numbers: 0, 1, 2, … in the order in which they were added."""

    def __init__(self) -> None:
        self._levels: list[_Level] = []
        self._new: dict[bytes, int] = {}
        self._count = 0

    def __len__(self) -> int:
        return self._count

    @property
    def nbytes(self) -> int:
        """Memory held, without the newest."""
        return sum(array.nbytes for level in self._levels for array in level)

    def find(self, digests: Sequence[bytes]) -> list[int]:
        """The number of each digest; -1 for one that is new, or empty."""
        if len(self._new) >= _NEW:
            self._settle()
        found = np.array([self._new.get(digest, -1) for digest in digests], np.int64)
        if self._levels and len(digests):
            wanted = np.frombuffer(b"".join(digest or _NONE for digest in digests), np.uint64).reshape(-1, 2)
            for level in self._levels:
                _look_up(level, wanted, found)
        numbers: list[int] = found.tolist()
        return [number if digest else -1 for number, digest in zip(numbers, digests, strict=True)]

    def recent(self, digest: bytes) -> int:
        """The number of a digest that was added since `find` was last called, or not much earlier; else -1."""
        return self._new.get(digest, -1)

    def add(self, digest: bytes) -> None:
        """Give a new digest the next number."""
        self._new[digest] = self._count
        self._count += 1

    def since(self, first: int = 0) -> Iterator[list[bytes]]:
        """Digests from a number on, in the order in which they were added, some thousands at a time."""
        self._settle()
        high, low, number = (np.concatenate(parts) for parts in zip(*self._levels, strict=True)) if self._levels else (
            np.zeros(0, np.uint64), np.zeros(0, np.uint64), np.zeros(0, np.uint32),
        )  # fmt: skip
        order = np.argsort(number)[first:]
        for begin in range(0, len(order), _NEW):
            some = order[begin : begin + _NEW]
            data = np.stack((high[some], low[some]), 1).tobytes()
            yield [data[at : at + 16] for at in range(0, len(data), 16)]

    def _settle(self) -> None:
        """Make an array of what stands in the dictionary."""
        if not self._new:
            return
        halves = np.frombuffer(b"".join(self._new), np.uint64).reshape(-1, 2)
        numbers = np.fromiter(self._new.values(), np.uint32, len(self._new))
        level = _sorted(halves[:, 0], halves[:, 1], numbers)
        self._new = {}
        while self._levels and len(self._levels[-1].high) <= len(level.high) < _LARGE:
            last = self._levels.pop()
            level = _sorted(
                np.concatenate((last.high, level.high)),
                np.concatenate((last.low, level.low)),
                np.concatenate((last.number, level.number)),
            )
        self._levels.append(level)


def _sorted(high: U64, low: U64, number: NDArray[np.uint32]) -> _Level:
    order = np.argsort(high, kind="stable")
    return _Level(high[order], low[order], number[order])


def _look_up(level: _Level, wanted: U64, found: NDArray[np.int64]) -> None:
    places = np.searchsorted(level.high, wanted[:, 0])
    rows = np.flatnonzero(found < 0)
    while len(rows):  # once, but for digests whose first halves are equal
        rows = rows[places[rows] < len(level.high)]
        rows = rows[level.high[places[rows]] == wanted[rows, 0]]
        same = level.low[places[rows]] == wanted[rows, 1]
        found[rows[same]] = level.number[places[rows[same]]]
        rows = rows[~same]
        places[rows] += 1
