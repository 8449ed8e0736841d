"""MinHash permutations, how their minima are cut into LSH bands, and what that finds.

The hash family is datasketch's (`affine32`: a MurmurHash3 finaliser, then `a * h + b` modulo 2^32, with the `a` and
`b` that `datasketch.MinHash` draws from its seed): the signatures that the kernels make are equal to datasketch's bit
for bit.

Source: Broder 1997, "On the resemblance and containment of documents"; Leskovec, Rajaraman, Ullman, "Mining of
Massive Datasets", section 3.4, for bands; Li and König 2010, "b-Bit Minwise Hashing", for the bits.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Bands", "agreement", "band_values", "choose_bands", "draw"]

_SEED = 1  # datasketch's own default: signatures can be compared with those of other programs
_BITS = 128  # the last of them is the unit of the shingles
_DEVIATIONS = 5.0


@dataclass(frozen=True, slots=True)
class Bands:
    """How a signature is cut: a pair is a candidate when all rows of one band agree."""

    count: int
    rows: int
    recall: float
    """Probability that a pair exactly at the threshold becomes a candidate; more similar pairs are likelier."""

    def finds(self, similarity: float) -> float:
        """Probability that a pair of this similarity becomes a candidate."""
        return 1 - (1 - similarity**self.rows) ** self.count


def choose_bands(threshold: float, permutations: int, *, recall: float = 0.98) -> Bands:
    """The longest bands (fewest candidates to verify) that still find pairs at the threshold, and no more of them than
    that takes.

    Args:
        permutations: at most so many are used.
        recall: least probability of finding a pair at the threshold; what no cut reaches, one-row bands do best.
    """
    for rows in range(permutations, 0, -1):
        cuts = [Bands(count, rows, 1 - (1 - threshold**rows) ** count) for count in range(1, permutations // rows + 1)]
        if cuts[-1].recall >= recall or rows == 1:
            return next((cut for cut in cuts if cut.recall >= recall), cuts[-1])
    raise AssertionError("unreachable")


def draw(count: int) -> tuple[NDArray[np.uint32], NDArray[np.uint32]]:
    """Factors and summands of datasketch's first `count` permutations."""
    random = np.random.RandomState(_SEED)
    a = random.randint(0, 1 << 31, count, dtype=np.uint32) * np.uint32(2) + np.uint32(1)
    return a, random.randint(0, 1 << 32, count, dtype=np.uint32)


def agreement(threshold: float, permutations: int) -> int:
    """How many of 128 bits a pair at the threshold shares, less five standard deviations: a candidate with fewer need
    not be read. The last bit, and those of permutations that do not exist, always agree. Loses one pair in three
    million."""
    count = min(permutations, _BITS - 1)
    share = (1 + threshold) / 2
    least = count * share - _DEVIATIONS * math.sqrt(count * share * (1 - share))
    return _BITS - count + max(math.floor(least), 0)


def band_values(signatures: Sequence[NDArray[np.uint32]], units: Sequence[int], bands: int) -> NDArray[np.uint64]:
    """One 64-bit value a band of each signature, different for bands and units; shape (signatures * bands,)."""
    mix, half = np.uint64(0xFF51AFD7ED558CCD), np.uint64(32)
    if not signatures:
        return np.zeros(0, np.uint64)
    minima = np.array(signatures, np.uint64).reshape(len(signatures), bands, -1)
    values = (1 + np.arange(bands) + np.array(units)[:, None] * bands).astype(np.uint64)
    for row in range(minima.shape[2]):
        values = (values ^ minima[:, :, row]) * mix
        values ^= values >> half
    return values.ravel()
