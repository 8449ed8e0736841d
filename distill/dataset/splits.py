"""Train and validation, so that no row of validation has a near relative in train.

Rows are relatives when they come from one slot, or from slots that showed the teacher the same combination of seeds:
their texts imitate the same examples. (Not when they share a single seed: with three seeds a leaf and two a slot
every row of a leaf would be related to every other, and nothing could be split.) Groups of relatives go to one
side as a whole. Where whole leaves or the whole set form one group there is no honest validation split, and none is
made.

The choice depends on the seed and the groups' names alone, not on the order of rows: groups are drawn in the order
of a keyed hash, leaf by leaf, so that every leaf gives its share as closely as its groups allow.
"""

from __future__ import annotations

import hashlib
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, field

__all__ = ["Splitter"]

Leaf = tuple[str, ...]


@dataclass(slots=True)
class _Group:
    order: bytes
    rows: int = 0
    leaves: dict[Leaf, int] = field(default_factory=dict[Leaf, int])

    @property
    def leaf(self) -> Leaf:
        """The leaf most of its rows are of."""
        return max(self.leaves, key=lambda leaf: (self.leaves[leaf], leaf))


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
        self._groups: dict[Hashable, _Group] = {}
        self._validation: set[Hashable] = set()

    def add(self, slot: int, seeds: Sequence[str], leaf: Sequence[str]) -> None:
        """Count one row."""
        key = _key(slot, seeds)
        group = self._groups.get(key)
        if group is None:
            name = "\x1f".join((str(self._seed), str(slot)) if isinstance(key, int) else (str(self._seed), *key))
            group = self._groups[key] = _Group(hashlib.blake2b(name.encode("utf-8"), digest_size=16).digest())
        group.rows += 1
        path = tuple(leaf)
        group.leaves[path] = group.leaves.get(path, 0) + 1

    @property
    def groups(self) -> int:
        return len(self._groups)

    def choose(self) -> int:
        """Decide; returns the rows of the validation split."""
        self._validation.clear()
        by_leaf: dict[Leaf, _Line] = {}
        for key, group in sorted(self._groups.items(), key=lambda item: item[1].order):
            by_leaf.setdefault(group.leaf, _Line()).groups.append((key, group))
        wanted = self._share * sum(group.rows for group in self._groups.values())
        for line in by_leaf.values():
            line.target = self._share * sum(group.rows for _, group in line.groups)
        # First every leaf by itself, up to its share; a group is taken when that brings the leaf closer to it.
        for line in by_leaf.values():
            while (group := line.next) is not None and line.taken + group.rows / 2 <= line.target:
                self._validation.add(line.take())
        # Then the leaves whose groups are larger than their share: the one that misses most gives next.
        while able := [line for line in by_leaf.values() if line.next is not None and line.taken == 0]:
            line = max(able, key=lambda line: (line.target, line.groups[0][1].order))
            if sum(line.taken for line in by_leaf.values()) + line.groups[0][1].rows / 2 > wanted:
                break
            self._validation.add(line.take())
        return sum(line.taken for line in by_leaf.values())

    def is_validation(self, slot: int, seeds: Sequence[str]) -> bool:
        return _key(slot, seeds) in self._validation


@dataclass(slots=True)
class _Line:
    """The groups of one leaf, in the order in which they go to validation."""

    groups: list[tuple[Hashable, _Group]] = field(default_factory=list[tuple[Hashable, _Group]])
    target: float = 0.0
    taken: int = 0
    """Rows."""
    _gone: int = 0

    @property
    def next(self) -> _Group | None:
        """The group that would go next; the last one stays in train."""
        return self.groups[self._gone][1] if self._gone < len(self.groups) - 1 else None

    def take(self) -> Hashable:
        key, group = self.groups[self._gone]
        self._gone += 1
        self.taken += group.rows
        return key


def _key(slot: int, seeds: Iterable[str]) -> int | tuple[str, ...]:
    combination = tuple(sorted(seeds))
    return combination or slot
