"""Train and validation, so that no row of validation has a near relative in train.

Rows are relatives when they come from one slot, or from slots that showed the teacher the same combination of seeds:
their texts imitate the same examples. (Not when they share a single seed: with three seeds a leaf and two a slot
every row of a leaf would be related to every other, and nothing could be split.) Groups of relatives go to one
side as a whole. Where whole leaves or the whole set form one group there is no honest validation split, and none is
made.

The choice depends on the seed and the groups' names alone, not on the order of rows: groups are drawn in the order
of a keyed hash, leaf by leaf, so that every leaf gives its share as closely as its groups allow. A row is held as that
hash and the number of its leaf, 12 bytes, and groups are formed of a sixteenth of the hashes at a time, so that a
million rows take hardly more room than a few thousand did.
"""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Splitter"]

Leaf = tuple[str, ...]
_PARTS = 16


class Splitter:
    """`add` every row once, then `choose`, then ask `is_validation` for every row again.

    splitter = Splitter(share=0.1, seed=7)
    for row in rows: splitter.add(row.slot, row.seeds, row.leaf)
    splitter.choose()
    """

    def __init__(self, *, share: float, seed: int) -> None:
        self._share = share
        self._seed = seed
        # Slots with the same seeds are one group; a slot without seeds is one of its own. A slot always has the same
        # seeds, so the union of both relations is just the combination of seeds.
        self._keys = array("Q")
        self._leaf_of = array("i")
        self._leaves: dict[Leaf, int] = {}
        self._validation: set[int] = set()

    def add(self, slot: int, seeds: Sequence[str], leaf: Sequence[str]) -> None:
        """Count one row."""
        self._keys.append(self._key(slot, seeds))
        self._leaf_of.append(self._leaves.setdefault(tuple(leaf), len(self._leaves)))

    @property
    def groups(self) -> int:
        return sum(len(part.keys) for part in self._parts())

    def choose(self) -> int:
        """Decide; returns the rows of the validation split."""
        leaves = _Leaves(len(self._leaves))
        for part in self._parts():
            leaves.count(part)
        target = self._share * leaves.rows
        taken = np.zeros_like(leaves.rows)
        chosen: set[int] = set()
        # First every leaf by itself, up to its share; a group is taken when that brings the leaf closer to it. The last
        # group of a leaf stays in train.
        left = leaves.groups - 1
        able = left > 0
        for part in self._parts():
            if not able.any():
                break
            mine = able[part.leaf]
            for key, rows, leaf in zip(*(each[mine].tolist() for each in part.columns), strict=True):
                able[leaf] = able[leaf] and left[leaf] > 0 and taken[leaf] + rows / 2 <= target[leaf]
                if able[leaf]:
                    chosen.add(key)
                    taken[leaf] += rows
                    left[leaf] -= 1
        # Then the leaves whose groups are larger than their share: the one that misses most gives first.
        wanted = self._share * len(self._keys)
        missing = np.flatnonzero((taken == 0) & (leaves.groups > 1))
        for leaf in missing[np.lexsort((leaves.first[missing], target[missing]))[::-1]]:
            if taken.sum() + leaves.first_rows[leaf] / 2 > wanted:
                break
            chosen.add(int(leaves.first[leaf]))
            taken[leaf] += leaves.first_rows[leaf]
        self._validation = chosen
        return int(taken.sum())

    def is_validation(self, slot: int, seeds: Sequence[str]) -> bool:
        return self._key(slot, seeds) in self._validation

    def _key(self, slot: int, seeds: Sequence[str]) -> int:
        """The group of a row. Two groups with one key, one pair in millions of millions, would be one group."""
        combination = sorted(seeds)
        text = "\x1f".join((str(self._seed), *(combination or (str(slot),))))
        digest = hashlib.blake2b(text.encode("utf-8"), digest_size=16).digest()
        # The last bit tells slot 1 from seed "1".
        return int.from_bytes(digest[:8], "big") & ~1 | bool(combination)

    def _parts(self) -> Iterator[_Groups]:
        """All groups in the order of their keys, a part at a time."""
        keys = np.frombuffer(self._keys, dtype=np.uint64)
        leaf_of = np.frombuffer(self._leaf_of, dtype=np.int32)
        # A leaf's rank among the leaves' paths: of two leaves with as many rows of a group the later one has it.
        rank = np.empty(len(self._leaves), dtype=np.int32)
        rank[[self._leaves[leaf] for leaf in sorted(self._leaves)]] = np.arange(len(self._leaves))
        part_of = np.right_shift(keys, 60).astype(np.uint8)
        for part in range(_PARTS):
            mine = part_of == part
            if mine.any():
                yield _Groups.of(keys[mine], rank[leaf_of[mine]])


@dataclass(frozen=True, slots=True)
class _Groups:
    """Groups of relatives: their keys, in order, their rows, and the rank of the leaf most of these are of."""

    keys: NDArray[np.uint64]
    rows: NDArray[np.int64]
    leaf: NDArray[np.int32]

    @property
    def columns(self) -> tuple[NDArray[np.uint64], NDArray[np.int64], NDArray[np.int32]]:
        return self.keys, self.rows, self.leaf

    @classmethod
    def of(cls, keys: NDArray[np.uint64], leaf: NDArray[np.int32]) -> _Groups:
        """The groups of rows with these keys and leaves."""
        order = np.lexsort((leaf, keys))
        keys, leaf = keys[order], leaf[order]
        starts = np.ones(len(keys), dtype=bool)
        starts[1:] = keys[1:] != keys[:-1]
        # Runs of rows of one group and one leaf; of each group the longest run decides.
        runs = starts.copy()
        runs[1:] |= leaf[1:] != leaf[:-1]
        first = np.flatnonzero(runs)
        length = np.diff(first, append=len(keys))
        group = np.cumsum(starts)[first]
        ranked = np.lexsort((leaf[first], length, group))
        last = np.append(np.diff(group[ranked]) > 0, True)[: len(ranked)]
        rows = np.diff(np.flatnonzero(starts), append=len(keys))
        return cls(keys[starts], rows, leaf[first][ranked][last])


class _Leaves:
    """Of every leaf, by rank: its rows, its groups, and the first of these."""

    def __init__(self, leaves: int) -> None:
        self.rows = np.zeros(leaves, dtype=np.int64)
        self.groups = np.zeros(leaves, dtype=np.int64)
        self.first = np.zeros(leaves, dtype=np.uint64)
        self.first_rows = np.zeros(leaves, dtype=np.int64)

    def count(self, part: _Groups) -> None:
        leaf, at = np.unique(part.leaf, return_index=True)
        new = self.groups[leaf] == 0
        leaf, at = leaf[new], at[new]
        self.first[leaf], self.first_rows[leaf] = part.keys[at], part.rows[at]
        np.add.at(self.rows, part.leaf, part.rows)
        np.add.at(self.groups, part.leaf, 1)
