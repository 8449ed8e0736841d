"""Ids of many rows in one growing buffer: an eighth of the memory of a list of short strings."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from distill.filters.near.arrays import grow

__all__ = ["Ids"]


class Ids:
    """Strings by number, in the order in which they came."""

    def __init__(self) -> None:
        self._data = bytearray()
        self._ends = np.zeros(1 << 8, np.int64)
        self._count = 0

    @property
    def nbytes(self) -> int:
        return len(self._data) + self._ends.nbytes

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, number: int) -> str:
        return self._data[self._ends[number] : self._ends[number + 1]].decode("utf-8")

    def extend(self, ids: Sequence[str]) -> None:
        if not ids:
            return
        encoded = [id_.encode("utf-8") for id_ in ids]
        grow(self._ends, self._count + len(ids) + 1)
        lengths = np.fromiter(map(len, encoded), np.int64, len(encoded))
        self._ends[self._count + 1 : self._count + 1 + len(ids)] = len(self._data) + np.cumsum(lengths)
        self._data += b"".join(encoded)
        self._count += len(ids)

    def append(self, id_: str) -> None:
        if self._count + 2 > len(self._ends):
            grow(self._ends, self._count + 2)
        self._data += id_.encode("utf-8")
        self._count += 1
        self._ends[self._count] = len(self._data)
