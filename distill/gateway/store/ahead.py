"""Answers read ahead of being asked for.

A replay asks for answers in about the order in which they came, so a lookup that follows another one takes the next
few rows along: finding a row is most of its price.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

__all__ = ["AHEAD", "ReadAhead"]

AHEAD = 64
"""Rows taken along at once."""

_HELD_BYTES = 8 << 20
"""Of bodies read ahead and not asked for yet."""

Row = Sequence[Any]
"""The columns of an answer, its body at `_BODY`, its CRC last."""

_BODY = 4


class ReadAhead:
    """Rows held by key, and whether the last lookups followed each other."""

    __slots__ = ("_bytes", "_last", "_rows")

    def __init__(self) -> None:
        self._rows: dict[bytes, Row] = {}
        self._bytes = 0
        self._last = -AHEAD

    def take(self, key: bytes) -> Row | None:
        """The row, which is held no longer."""
        row = self._rows.pop(key, None)
        if row is not None:
            self._bytes -= len(row[_BODY])
        return row

    def follows(self, place: int) -> bool:
        """Whether a row found at `place` was close to the one before; makes room for those after it."""
        near, self._last = abs(place - self._last) <= AHEAD, place
        if near and self._bytes > _HELD_BYTES:
            self._rows.clear()
            self._bytes = 0
        return near

    def hold(self, rows: Iterable[Row]) -> None:
        """Rows that follow, with their keys first and their places last."""
        for name, *row, place in rows:
            self._last = place
            if name not in self._rows:
                self._rows[name] = row
                self._bytes += len(row[_BODY])
