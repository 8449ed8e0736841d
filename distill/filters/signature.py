"""MinHash signatures of a batch and their LSH bands.

The hash family is datasketch's (`affine32`: a MurmurHash3 finaliser, then `a * h + b` modulo 2^32, with the `a` and
`b` that `datasketch.MinHash` draws from the seed), computed over all texts of a batch at once: the values are equal
to datasketch's bit for bit, about a hundred times faster than one `MinHash` object a text.

Source: Broder 1997, "On the resemblance and containment of documents"; Leskovec, Rajaraman, Ullman, "Mining of
Massive Datasets", section 3.4, for bands.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distill.filters.shingles import Shingles

__all__ = ["Bands", "Signer", "choose_bands"]

_SEED = 1  # datasketch's own default: signatures can be compared with those of other programs
_MIX = np.uint64(0xFF51AFD7ED558CCD)


@dataclass(frozen=True, slots=True)
class Bands:
    """How a signature is cut: a pair is a candidate when all rows of one band agree."""

    count: int
    rows: int
    recall: float
    """Probability that a pair exactly at the threshold becomes a candidate; more similar pairs are likelier."""


def choose_bands(threshold: float, permutations: int, *, recall: float = 0.98) -> Bands:
    """The longest bands (fewest candidates to verify) that still find pairs at the threshold.

    Args:
        recall: least probability of finding a pair at the threshold; what no cut reaches, one-row bands do best.
    """
    for rows in range(permutations, 0, -1):
        count = permutations // rows
        found = 1 - (1 - threshold**rows) ** count
        if found >= recall or rows == 1:
            return Bands(count, rows, found)
    raise AssertionError("unreachable")


class Signer:
    """Signatures and band tags of batches of shingles."""

    def __init__(self, bands: Bands) -> None:
        self.bands = bands
        from datasketch import MinHash  # here, because it imports half of scipy

        minhash: Any = MinHash(num_perm=bands.count * bands.rows, seed=_SEED, scheme="affine32")
        family = minhash.permutations
        self._a: NDArray[np.uint32] = np.asarray(family[0], np.uint32)
        self._b: NDArray[np.uint32] = np.asarray(family[1], np.uint32)

    def signatures(self, shingles: Shingles) -> NDArray[np.uint32]:
        """Shape (permutations, texts). A text without shingles has the signature of the empty set (all ones)."""
        out = np.full((len(self._a), len(shingles.counts)), 0xFFFFFFFF, np.uint32)
        filled = np.flatnonzero(shingles.counts)
        if not len(filled):
            return out
        values = _finalise((shingles.hashes >> np.uint64(32)).astype(np.uint32))
        # Pairs of edges: a text's shingles, then what stands before the next text's; only the first are used.
        edges = np.empty(2 * len(filled), np.int64)
        edges[::2] = shingles.starts[filled]
        edges[1::2] = shingles.starts[filled] + shingles.counts[filled]
        if edges[-1] >= len(values):
            edges = edges[:-1]
        work = np.empty_like(values)
        minima = np.empty(len(edges), np.uint32)
        for row, (a, b) in enumerate(zip(self._a, self._b, strict=True)):
            np.multiply(values, a, out=work)
            np.add(work, b, out=work)
            np.minimum.reduceat(work, edges, out=minima)
            out[row, filled] = minima[::2]
        return out

    def tags(self, shingles: Shingles) -> NDArray[np.uint32]:
        """One 32-bit tag for every band of every text, shape (texts, bands). Tags of different bands differ."""
        signatures = self.signatures(shingles)
        parts = signatures.reshape(self.bands.count, self.bands.rows, -1).astype(np.uint64)
        tag = np.broadcast_to(np.arange(1, self.bands.count + 1, dtype=np.uint64)[:, None], parts[:, 0].shape).copy()
        for row in range(self.bands.rows):
            tag ^= parts[:, row]
            tag *= _MIX
            tag ^= tag >> np.uint64(32)
        tag *= _MIX
        return np.ascontiguousarray((tag >> np.uint64(32)).astype(np.uint32).T)


def _finalise(h: NDArray[np.uint32]) -> NDArray[np.uint32]:
    """The MurmurHash3 finaliser for 32 bits."""
    h = h ^ (h >> np.uint32(16))
    h *= np.uint32(0x85EBCA6B)
    h ^= h >> np.uint32(13)
    h *= np.uint32(0xC2B2AE35)
    h ^= h >> np.uint32(16)
    return h
