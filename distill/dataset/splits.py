"""Train and validation, so that no row of validation has a near relative in train.

Rows are relatives when they come from one slot, or from slots that showed the teacher the same combination of seeds:
their texts imitate the same examples. (Not when they share a single seed: with three seeds a leaf and two a slot
every row of a leaf would be related to every other, and nothing could be split.) Groups of relatives go to one
side as a whole. Where whole leaves or the whole set form one group there is no honest validation split, and none is
made.

The choice depends on the seed and the groups' names alone, not on the order of rows: groups are drawn in the order
of a keyed hash, leaf by leaf, so that every leaf gives its share as closely as its groups allow. A row is held as that
hash and the number of its leaf, 21 bytes, so that a million rows take no more room than a few thousand did.
"""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Splitter"]

Leaf = tuple[str, ...]
_ORDER = np.dtype([("high", ">u8"), ("low", ">u8"), ("seeded", "u1")])
"""A group: the keyed hash of its name, whose big-endian halves sort as its bytes do, and which kind of name it is."""


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
        self._names = bytearray()
        self._leaf_of = array("i")
        self._leaves: dict[Leaf, int] = {}
        self._groups: _Groups | None = None
        self._validation: set[bytes] = set()

    def add(self, slot: int, seeds: Sequence[str], leaf: Sequence[str]) -> None:
        """Count one row."""
        self._names += self._name(slot, seeds)
        self._leaf_of.append(self._leaves.setdefault(tuple(leaf), len(self._leaves)))
        self._groups = None

    @property
    def groups(self) -> int:
        return len(self._grouped().names)

    def choose(self) -> int:
        """Decide; returns the rows of the validation split."""
        groups = self._grouped()
        lines = self._lines(groups)
        wanted = self._share * len(self._leaf_of)
        chosen: list[int] = []
        # First every leaf by itself, up to its share; a group is taken when that brings the leaf closer to it.
        for line in lines:
            while line.left and line.taken + line.next_rows / 2 <= line.target:
                chosen.append(line.take())
        # Then the leaves whose groups are larger than their share: the one that misses most gives next.
        while able := [line for line in lines if line.left and line.taken == 0]:
            line = max(able, key=lambda line: (line.target, groups.names[line.groups[0]].tobytes()))
            if sum(each.taken for each in lines) + line.next_rows / 2 > wanted:
                break
            chosen.append(line.take())
        self._validation = {groups.names[number].tobytes() for number in chosen}
        return sum(line.taken for line in lines)

    def is_validation(self, slot: int, seeds: Sequence[str]) -> bool:
        return self._name(slot, seeds) in self._validation

    def _name(self, slot: int, seeds: Iterable[str]) -> bytes:
        combination = sorted(seeds)
        text = "\x1f".join((str(self._seed), *(combination or (str(slot),))))
        return hashlib.blake2b(text.encode("utf-8"), digest_size=16).digest() + (b"\1" if combination else b"\0")

    def _grouped(self) -> _Groups:
        """The groups in the order of their hashes."""
        if self._groups is None:
            names = np.frombuffer(self._names, dtype=_ORDER)
            leaf_of = np.frombuffer(self._leaf_of, dtype=np.int32)
            # A leaf's rank among the leaves' paths: of two leaves with as many rows of a group the later one has it.
            rank = np.empty(len(self._leaves), dtype=np.int64)
            rank[[self._leaves[leaf] for leaf in sorted(self._leaves)]] = np.arange(len(self._leaves))
            self._groups = _Groups.of(names, rank[leaf_of])
        return self._groups

    def _lines(self, groups: _Groups) -> list[_Line]:
        order = np.argsort(groups.leaf, kind="stable")
        borders = np.flatnonzero(np.diff(groups.leaf[order])) + 1
        parts = [part for part in np.split(order, borders) if len(part)]
        return [_Line(part, groups.rows, self._share * int(groups.rows[part].sum())) for part in parts]


@dataclass(frozen=True, slots=True)
class _Groups:
    """Groups of relatives: their names, in order, their rows, and the rank of the leaf most of these are of."""

    names: NDArray[Any]
    rows: NDArray[np.int64]
    leaf: NDArray[np.int64]

    @classmethod
    def of(cls, names: NDArray[Any], leaf: NDArray[np.int64]) -> _Groups:
        """The groups of rows with these names and leaves."""
        order = np.lexsort((leaf, names["seeded"], names["low"], names["high"]))
        names, leaf = names[order], leaf[order]
        starts = np.ones(len(names), dtype=bool)
        starts[1:] = False
        for part in ("high", "low", "seeded"):
            starts[1:] |= names[part][1:] != names[part][:-1]
        # Runs of rows of one group and one leaf; of each group the longest run decides.
        runs = starts.copy()
        runs[1:] |= leaf[1:] != leaf[:-1]
        first = np.flatnonzero(runs)
        length = np.diff(first, append=len(names))
        group = np.cumsum(starts)[first]
        ranked = np.lexsort((leaf[first], length, group))
        last = np.append(np.diff(group[ranked]) > 0, True)[: len(ranked)]
        rows = np.diff(np.flatnonzero(starts), append=len(names))
        return cls(names[starts], rows, leaf[first][ranked][last])


@dataclass(slots=True)
class _Line:
    """The groups of one leaf, in the order in which they go to validation."""

    groups: NDArray[np.int64]
    rows: NDArray[np.int64]
    """Of all groups, by number."""
    target: float
    taken: int = 0
    """Rows."""
    _gone: int = field(default=0)

    @property
    def left(self) -> bool:
        """Whether a group may go; the last one stays in train."""
        return self._gone < len(self.groups) - 1

    @property
    def next_rows(self) -> int:
        """Rows of the group that would go next."""
        return int(self.rows[self.groups[self._gone]])

    def take(self) -> int:
        """Let it go; returns its number."""
        number = int(self.groups[self._gone])
        self._gone += 1
        self.taken += int(self.rows[number])
        return number
