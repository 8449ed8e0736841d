"""Seed examples: read from a file, gathered into pools, drawn so that no combination repeats too early."""

from __future__ import annotations

from collections.abc import Iterable
from math import comb
from pathlib import Path
from typing import Any

from distill.errors import InputError
from distill.io import check_text, read_jsonl
from distill.planning.mixing import mix, permuted
from distill.planning.slot import Seed
from distill.planning.taxonomy import Taxonomy
from distill.recipe import suggest

__all__ = ["Pool", "load_seeds", "pool_for"]

_SMALL = 64


def load_seeds(path: Path, taxonomy: Taxonomy) -> tuple[Seed, ...]:
    """Read seeds from JSONL: `text`, optional `leaf` (`branch/leaf` or a list; a branch serves all its leaves that
    have no seeds of their own), optional `id`; every other field is kept in `Seed.data`.

    Raises:
        InputError: names file and line.
    """
    known = taxonomy.paths()
    seeds: list[Seed] = []
    lines: dict[str, int] = {}
    for number, row in read_jsonl(path):
        seed = _seed(row, known, path, number)
        if seed.id in lines:
            message = f"the id {seed.id!r} stands in line {lines[seed.id]} too"
            raise InputError(message, path=path, line=number, field="id")
        lines[seed.id] = number
        seeds.append(seed)
    if not seeds:
        raise InputError("holds no seeds", path=path)
    return tuple(seeds)


def _seed(row: dict[str, Any], known: set[tuple[str, ...]], path: Path, line: int) -> Seed:
    text = row.pop("text", None)
    if not isinstance(text, str) or not text.strip():
        raise InputError("every seed needs a text", path=path, line=line, field="text")
    check_text(text)
    given = row.pop("leaf", None)
    if isinstance(given, list):
        given = "/".join(str(part) for part in given)  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
    if given is not None and not isinstance(given, str):
        raise InputError("write it as branch/leaf", path=path, line=line, field="leaf")
    leaf = tuple(part.strip() for part in given.split("/")) if given else None
    if leaf is not None and leaf not in known:
        names = sorted("/".join(name) for name in known)
        raise InputError(
            f"no such branch or leaf: {given}; {suggest(str(given), names)}", path=path, line=line, field="leaf"
        )
    return Seed(str(row.pop("id", None) or f"{path.stem}:{line}"), text, leaf, row)


def pool_for(leaf: tuple[str, ...], seeds: Iterable[Seed]) -> tuple[Seed, ...]:
    """The seeds that serve a leaf: its own, else those of the nearest branch that has any, else those that belong
    to no branch. (A text about another leaf would show the teacher the wrong thing.)"""
    by_node: dict[tuple[str, ...], list[Seed]] = {}
    for seed in seeds:
        by_node.setdefault(seed.leaf or (), []).append(seed)
    for depth in range(len(leaf), -1, -1):
        if leaf[:depth] in by_node:
            return tuple(by_node[leaf[:depth]])
    return ()


class Pool:
    """Combinations of `size` different seeds, in a shuffled order that is computed, not stored: the n-th draw is
    the seed set with rank `permutation(n)`. All combinations come once before one comes again."""

    def __init__(self, seeds: tuple[Seed, ...], size: int, key: int) -> None:
        self.seeds = seeds
        self._size = min(size, len(seeds))
        self._combinations = comb(len(seeds), self._size)
        self._key = key
        # Small pools are the usual ones: one lap of theirs is kept at a time.
        self._lap: tuple[int, list[tuple[Seed, ...]]] = (-1, [])

    def draw(self, number: int) -> tuple[Seed, ...]:
        """The seeds of draw `number`, counted from 0."""
        lap, position = divmod(number, self._combinations)
        if self._combinations > _SMALL:
            return self._combination(lap, position)
        if self._lap[0] != lap:
            self._lap = (lap, [self._combination(lap, n) for n in range(self._combinations)])
        return self._lap[1][position]

    def _combination(self, lap: int, position: int) -> tuple[Seed, ...]:
        size = self._size
        if not size:
            return ()
        key = mix(self._key + lap)
        rank = permuted(position, self._combinations, key)
        chosen = [self.seeds[i] for i in _combination(rank, len(self.seeds), size)]
        # Which example comes first matters to a teacher, so the order within a combination turns too.
        turn = mix(key ^ position) % size
        return tuple(chosen[turn:] + chosen[:turn])


def _combination(rank: int, count: int, size: int) -> list[int]:
    """The `rank`-th set of `size` numbers below `count`, in the combinatorial number system, largest first."""
    numbers: list[int] = []
    above = count
    for left in range(size, 0, -1):
        # The largest number whose binomial is still within the rank; binary search, as pools may be large.
        low, high = left - 1, above - 1
        while low < high:
            middle = (low + high + 1) // 2
            if comb(middle, left) <= rank:
                low = middle
            else:
                high = middle - 1
        rank -= comb(low, left)
        numbers.append(low)
        above = low
    return numbers
