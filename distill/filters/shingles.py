"""Overlapping runs of characters or words of many texts at once, as 64-bit hashes.

The texts of a batch are one array of code points; a polynomial hash rolls over it in a handful of array
operations, so that a shingle costs a few nanoseconds instead of a Python object. Two texts' shingle sets are
compared by these hashes: at 64 bits a false equality needs billions of texts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Shingles", "char_shingles", "hash_words", "shared_run", "similarity", "word_shingles"]

U64 = NDArray[np.uint64]

_CHAR = np.uint64(0x9E3779B97F4A7C15)  # odd: multiplication is a bijection, no information is lost
_WORD = np.uint64(0xD1342543DE82EF95)


@dataclass(frozen=True, slots=True)
class Shingles:
    """Shingle hashes of n texts in one array. Those of text i stand at `starts[i] : starts[i] + counts[i]`, in the
    order of the text; what stands between belongs to no text."""

    hashes: U64
    starts: NDArray[np.int64]
    counts: NDArray[np.int64]

    def of(self, row: int) -> U64:
        """Hashes of one text, in order."""
        return self.hashes[self.starts[row] : self.starts[row] + self.counts[row]]

    def set_of(self, row: int) -> U64:
        """Sorted distinct hashes of one text."""
        hashes = np.sort(self.of(row))
        return hashes[np.concatenate(([True], hashes[1:] != hashes[:-1]))] if len(hashes) else hashes


def char_shingles(texts: Sequence[str], size: int) -> Shingles:
    """Runs of `size` characters. A text shorter than that is one shingle; an empty text has none."""
    # The zeros after each text complete the shingle of a short one.
    gap = "\0" * (size - 1)
    points = np.frombuffer((gap.join(texts) + gap).encode("utf-32-le"), np.uint32).astype(np.uint64)
    lengths = np.fromiter(map(len, texts), np.int64, len(texts))
    return _roll(points, lengths, size, _CHAR)


def word_shingles(texts: Sequence[str], size: int) -> Shingles:
    """Runs of `size` words of texts whose words are separated by single spaces."""
    words = hash_words(texts)
    total = len(texts)
    # Room for `size - 1` zeros after each text, as above.
    starts = np.concatenate(([0], np.cumsum(words.counts + size - 1)))[:-1]
    padded = np.zeros(int(words.counts.sum()) + total * (size - 1), np.uint64)
    place = np.arange(len(words.hashes)) + np.repeat(starts - words.starts, words.counts)
    padded[place] = words.hashes
    return _roll(padded, words.counts, size, _WORD)


def hash_words(texts: Sequence[str]) -> Shingles:
    """One hash a word, for texts whose words are separated by single spaces; no gaps between the texts."""
    points = np.frombuffer((" ".join(texts) + " ").encode("utf-32-le"), np.uint32)
    lengths = np.fromiter(map(len, texts), np.int64, len(texts))
    ends = np.flatnonzero(points == 32)
    begins = np.concatenate(([0], ends[:-1] + 1))
    sizes = ends - begins
    counts = np.fromiter((t.count(" ") + 1 for t in texts), np.int64, len(texts))
    if not len(ends):
        return Shingles(np.zeros(0, np.uint64), np.zeros(0, np.int64), counts)
    place = np.arange(len(points)) - np.repeat(begins, sizes + 1)
    powers = np.multiply.accumulate(np.full(int(sizes.max()) + 1, _CHAR, np.uint64))
    weighted = points.astype(np.uint64) * powers[place]
    weighted[ends] = 0
    hashes = np.add.reduceat(weighted, begins)
    hashes ^= hashes >> np.uint64(32)
    counts = np.where(lengths == 0, 0, counts)
    hashes = hashes[sizes > 0]  # an empty text is one empty word
    return Shingles(hashes, np.concatenate(([0], np.cumsum(counts)))[:-1], counts)


def similarity(left: U64, right: U64) -> float:
    """Jaccard similarity of two sets of sorted distinct hashes."""
    total = len(left) + len(right)
    if not total:
        return 1.0
    both = np.concatenate((left, right))
    both.sort()
    shared = int(np.count_nonzero(both[1:] == both[:-1]))
    return shared / (total - shared)


def shared_run(hashes: U64, other: U64) -> tuple[int, int]:
    """(first, length) of the longest run of consecutive shingles in `hashes` that all stand in the sorted `other`."""
    if not len(hashes) or not len(other):
        return 0, 0
    place = np.minimum(np.searchsorted(other, hashes), len(other) - 1)
    hit = np.concatenate(([False], other[place] == hashes, [False]))
    edges = np.flatnonzero(hit[1:] != hit[:-1])
    if not len(edges):
        return 0, 0
    begins, ends = edges[::2], edges[1::2]
    best = int(np.argmax(ends - begins))
    return int(begins[best]), int(ends[best] - begins[best])


def _roll(values: U64, lengths: NDArray[np.int64], size: int, factor: np.uint64) -> Shingles:
    room = max(len(values) - size + 1, 0)
    hashes = values[:room].copy()
    for step in range(1, size):
        hashes *= factor
        hashes += values[step : step + room]
    starts = np.concatenate(([0], np.cumsum(lengths + size - 1)))[:-1].astype(np.int64)
    counts = np.where(lengths == 0, 0, np.maximum(lengths - size + 1, 1))
    return Shingles(hashes, starts, counts)
