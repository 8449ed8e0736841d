"""The band index: which earlier texts share a band with a new one.

One hash table for all bands, in three flat arrays that grow by doubling: bucket heads, and for each (text, band) its
32-bit tag and the next entry of its bucket. That is 16 bytes a band and text, with no Python object in it, and a
batch is looked up or added in a few array operations.

A band shared by very many texts (boilerplate) would make every later text a candidate of all of them. So only the
first `CAP` kept texts with the same band can be found through it; a text stays findable through its other bands.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["CAP", "BandIndex"]

CAP = 32
"""Kept texts that can be found through one band value."""

_END = np.int32(-1)
_UNLINKED = np.int32(-2)


class BandIndex:
    """Texts are numbered from 0 in the order they are added."""

    def __init__(self, bands: int) -> None:
        self._bands = bands
        self._count = 0
        self._heads = np.full(1 << 12, _END, np.int32)
        self._tags = np.empty(1 << 12, np.uint32)
        self._next = np.empty(1 << 12, np.int32)

    def __len__(self) -> int:
        return self._count

    @property
    def nbytes(self) -> int:
        """Memory held."""
        return self._heads.nbytes + self._tags.nbytes + self._next.nbytes

    def lookup(self, tags: NDArray[np.uint32]) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """Find earlier texts that share a band.

        Args:
            tags: shape (n, bands).

        Returns:
            Distinct candidate pairs (row of `tags`, number of the earlier text), sorted, and for every tag how many
            earlier texts it leads to, shape (n, bands).
        """
        flat = tags.ravel()
        found = np.zeros(len(flat), np.int64)
        at = self._heads[flat & np.uint32(len(self._heads) - 1)]
        where = np.flatnonzero(at != _END)
        at = at[where]
        rows: list[NDArray[np.int64]] = []
        texts: list[NDArray[np.int64]] = []
        while len(where):
            hit = self._tags[at] == flat[where]
            if hit.any():
                found[where[hit]] += 1
                rows.append(where[hit] // self._bands)
                texts.append((at[hit] // self._bands).astype(np.int64))
            at = self._next[at]
            alive = at != _END
            at, where = at[alive], where[alive]
        counts = found.reshape(tags.shape)
        if not rows:
            empty = np.zeros(0, np.int64)
            return empty, empty, counts
        pairs = (np.concatenate(rows) << np.int64(32)) | np.concatenate(texts)
        pairs.sort()
        pairs = pairs[np.concatenate(([True], pairs[1:] != pairs[:-1]))]
        return pairs >> np.int64(32), pairs & np.int64(0xFFFFFFFF), counts

    def add(self, tags: NDArray[np.uint32], linked: NDArray[np.bool_]) -> None:
        """Add texts, shape (n, bands); entries not `linked` are numbered but cannot be found."""
        first = self._count * self._bands
        total = first + tags.size
        self._reserve(total)
        self._tags[first:total] = tags.ravel()
        self._next[first:total] = _UNLINKED
        self._count += len(tags)
        entries = first + np.flatnonzero(linked.ravel())
        if total > len(self._heads):
            self._heads = np.full(1 << int(total).bit_length(), _END, np.int32)
            entries = np.concatenate((np.flatnonzero(self._next[:first] != _UNLINKED), entries))
        self._link(entries)

    def _link(self, entries: NDArray[np.int64]) -> None:
        """Put entries at the front of their buckets, all buckets at once."""
        if not len(entries):
            return
        bucket = (self._tags[entries] & np.uint32(len(self._heads) - 1)).astype(np.int64)
        both = (bucket << np.int64(32)) | entries
        both.sort()
        bucket, entry = both >> np.int64(32), (both & np.int64(0xFFFFFFFF)).astype(np.int32)
        starts = np.concatenate(([True], bucket[1:] != bucket[:-1]))
        before = np.concatenate(([_END], entry[:-1]))
        self._next[entry] = np.where(starts, self._heads[bucket], before)
        last = np.concatenate((starts[1:], [True]))
        self._heads[bucket[last]] = entry[last]

    def _reserve(self, total: int) -> None:
        if total <= len(self._tags):
            return
        size = 1 << int(total - 1).bit_length()
        self._tags = np.concatenate((self._tags, np.empty(size - len(self._tags), np.uint32)))
        self._next = np.concatenate((self._next, np.empty(size - len(self._next), np.int32)))
