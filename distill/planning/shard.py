"""One plan for several machines: which of its slots, and how many rows of each leaf, are a shard's.

The slots of every leaf are dealt in turn, like cards: shard i of n takes each n-th slot of the leaf, beginning at
another place for every leaf so that small leaves do not all fall to the first shard. Targets are dealt the same way.
So shards never share a slot, their targets add up to the recipe's, and what they plan first is together exactly what
one run would have planned first: a merged run finds all of its answers.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from distill.errors import InputError

__all__ = ["Shard"]

Draft = TypeVar("Draft", bound=tuple[Any, ...])
Leaf = TypeVar("Leaf")


@dataclass(frozen=True, slots=True)
class Shard:
    """The `index`-th of `of` shards; the first one has index 1."""

    index: int
    of: int

    @classmethod
    def parse(cls, text: str) -> Shard:
        """`2/4` is the second of four.

        Raises:
            InputError: it is no shard.
        """
        match = re.fullmatch(r"(\d{1,6})/(\d{1,6})", text.strip())
        if match is None or not 1 <= int(match[1]) <= int(match[2]):
            raise InputError(
                f"not a shard: {text!r}", field="--shard", hint="write i/n, for example 2/4 for the second of four"
            )
        return cls(int(match[1]), int(match[2]))

    def __str__(self) -> str:
        return f"{self.index}/{self.of}"

    def has(self, leaf: int, turn: int) -> bool:
        """Whether slot number `turn` of leaf number `leaf` (both from 0) is this shard's."""
        return (turn + leaf) % self.of == self.index - 1

    def quota(self, quota: Mapping[Leaf, int]) -> dict[Leaf, int]:
        """The shard's part of the rows wanted of each leaf; the parts of all shards add up to the whole."""
        parts: dict[Leaf, int] = {}
        for number, (leaf, wanted) in enumerate(quota.items()):
            first = (self.index - 1 - number) % self.of
            parts[leaf] = max(0, -(-(wanted - first) // self.of))
        return parts

    def deal(self, drafts: Iterator[Draft]) -> Iterator[Draft]:
        """Those of `drafts` that are this shard's; the number of its leaf is the second member of each."""
        turns: defaultdict[int, int] = defaultdict(int)
        for draft in drafts:
            leaf = draft[1]
            turn = turns[leaf]
            turns[leaf] = turn + 1
            if self.has(leaf, turn):
                yield draft
