"""Which texts of a fixed collection share word n-grams with new texts.

A `GramTable` is a sorted array of (n-gram hash, text) pairs. A bit table before it answers "in no text" for nearly
all n-grams of clean rows, so only few are ever searched.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from distill.filters.near.shingles import Shingles

__all__ = ["GramTable", "Hits", "grams"]

_MULTIPLY = np.uint64(0xD1342543DE82EF95)
_SPREAD = np.uint64(0x9E3779B97F4A7C15)


@dataclass(frozen=True, slots=True)
class Hits:
    """Pairs of a new text and a text of the table, and how many distinct n-grams they share."""

    rows: NDArray[np.int64]
    texts: NDArray[np.int64]
    shared: NDArray[np.int64]


def grams(words: Shingles, n: int, rows: NDArray[np.int64]) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    """Distinct n-grams of some texts: (hash, row), sorted by row. Texts under n words have none."""
    return _distinct(*_runs(words, n, rows))


def _runs(words: Shingles, n: int, rows: NDArray[np.int64]) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    """Every n-gram of some texts: (hash, row), in the order of the texts."""
    rows = rows[words.counts[rows] >= n]
    counts = words.counts[rows] - n + 1
    if not len(rows):
        return np.zeros(0, np.uint64), np.zeros(0, np.int64)
    owner = np.repeat(rows, counts)
    # Place of the first word of every n-gram.
    first = np.arange(int(counts.sum())) + np.repeat(words.starts[rows] - (np.cumsum(counts) - counts), counts)
    hashes = words.hashes[first].copy()
    for step in range(1, n):
        hashes *= _MULTIPLY
        hashes += words.hashes[first + step]
    return hashes, owner


def _distinct(hashes: NDArray[np.uint64], owner: NDArray[np.int64]) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    if not len(hashes):
        return hashes, owner
    order = np.lexsort((hashes, owner))
    hashes, owner = hashes[order], owner[order]
    new = np.concatenate(([True], (hashes[1:] != hashes[:-1]) | (owner[1:] != owner[:-1])))
    return hashes[new], owner[new]


class GramTable:
    """n-grams of a collection, for one n."""

    def __init__(self, words: Shingles, n: int, texts: NDArray[np.int64]) -> None:
        self.n = n
        hashes, owner = grams(words, n, texts)
        order = np.argsort(hashes, kind="stable")
        self._hashes, self._texts = hashes[order], owner[order]
        # Sixteen places an n-gram: one in sixteen strangers is searched in vain.
        self._shift = np.uint64(64 - max(10, (16 * len(hashes)).bit_length()))
        self._filter = np.zeros(1 << (64 - int(self._shift)), bool)
        self._filter[self._place(hashes)] = True

    def __len__(self) -> int:
        return len(self._hashes)

    def hits(self, words: Shingles, rows: NDArray[np.int64]) -> Hits:
        """What some texts share with the collection."""
        hashes, owner = _runs(words, self.n, rows)
        likely = self._filter[self._place(hashes)]
        hashes, owner = _distinct(hashes[likely], owner[likely])
        left = np.searchsorted(self._hashes, hashes, "left")
        counts = np.searchsorted(self._hashes, hashes, "right") - left
        total = int(counts.sum())
        if not total:
            empty = np.zeros(0, np.int64)
            return Hits(empty, empty, empty)
        place = np.arange(total) + np.repeat(left - (np.cumsum(counts) - counts), counts)
        pairs = (np.repeat(owner, counts) << np.int64(32)) | self._texts[place]
        pairs, shared = np.unique(pairs, return_counts=True)
        return Hits(pairs >> np.int64(32), pairs & np.int64(0xFFFFFFFF), shared)

    def _place(self, hashes: NDArray[np.uint64]) -> NDArray[np.uint64]:
        return (hashes * _SPREAD) >> self._shift
