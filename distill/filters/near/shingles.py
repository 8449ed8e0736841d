"""The words of many texts at once, as 64-bit hashes.

The texts of a batch are one array of code points; a polynomial hash runs over it in a handful of array operations, so
that a word costs a few nanoseconds instead of a Python object. At 64 bits a false equality needs billions of texts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Shingles", "hash_words"]

U64 = NDArray[np.uint64]

_CHAR = np.uint64(0x9E3779B97F4A7C15)  # odd: multiplication is a bijection, no information is lost


@dataclass(frozen=True, slots=True)
class Shingles:
    """Hashes of n texts in one array. Those of text i stand at `starts[i] : starts[i] + counts[i]`, in the
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
