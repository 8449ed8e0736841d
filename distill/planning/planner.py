"""The plan: an endless sequence of slots, a pure function of (taxonomy, seeds, recipe seed, index).

The sequence knows nothing of the target, of other runs, or of what became of earlier slots; `take` only decides
which of its slots are used. Three draws make a slot: its leaf (`Interleave`: shares hold at every prefix), its kind
and dimension values (`Balance`: values and pairs of values evenly covered), and its seeds (`Pool`: no combination
comes again before all have come).
"""

from __future__ import annotations

import heapq
from array import array
from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction

from distill.errors import InputError
from distill.planning.balance import Balance, odds
from distill.planning.interleave import Interleave, apportion
from distill.planning.mixing import key_of, mix, permuted
from distill.planning.seeds import Pool, pool_for
from distill.planning.shard import Shard
from distill.planning.slot import Seed, Slot, Topic
from distill.planning.taxonomy import Taxonomy, Twist, exact

__all__ = ["Planner"]

Draft = tuple[int, int, list[int], int, int]
"""A slot in numbers: index, leaf, kind and values, draw of its seed pool, draw of its second leaf."""


class Planner:
    """Slots for one recipe.

    Args:
        recipe_name: stands in the slots' ids, and decides nothing else.
        taxonomy: what the slots are about.
        seeds: examples beside those of the taxonomy.
        seed: the recipe's seed: another one gives another sequence.
        seeds_per_slot: examples a slot carries.
        adversarial_share: goes before the taxonomy's own share.
        shard: the part of the plan that `quota` and `take` are about; left out, the whole.

    Raises:
        InputError: a share is asked for and the taxonomy names no adversarial kind.
    """

    def __init__(
        self,
        recipe_name: str,
        taxonomy: Taxonomy,
        seeds: Sequence[Seed] = (),
        *,
        seed: int = 0,
        seeds_per_slot: int = 2,
        adversarial_share: float | None = None,
        shard: Shard | None = None,
    ) -> None:
        if adversarial_share and not taxonomy.twists:
            raise InputError(
                f"the taxonomy {taxonomy.name} names no adversarial kind",
                field="plan.adversarial_share",
                hint="add kinds under `adversarial:` in the taxonomy, or leave the share out",
            )
        self._name = recipe_name
        self._shard = shard
        self._seed = seed
        self._taxonomy = taxonomy
        share = taxonomy.share if adversarial_share is None else exact(float(adversarial_share))
        self._twists = taxonomy.twists if share else ()
        self._topics, self._shares = _leaves(taxonomy, self._twists, share)
        self._expected = [self._odds(topic, share) for topic in self._topics]
        self._pools, self._pool_of = self._gather((*taxonomy.topic_seeds, *seeds), seeds_per_slot)
        self._keys = [key_of("leaf", seed, *topic.path) for topic in self._topics]
        self._names = tuple(dimension.name for dimension in taxonomy.dimensions)
        self._values = [[value.name for value in dimension.values] for dimension in taxonomy.dimensions]
        self._descriptions = [[value.description for value in dimension.values] for dimension in taxonomy.dimensions]
        self._labels: dict[tuple[int, int], Mapping[str, str]] = {}
        self._cursor: Iterator[Draft] | None = None
        self._skipped: dict[int, _Drafts] = {}

    @property
    def leaves(self) -> tuple[tuple[str, ...], ...]:
        """Paths of the leaves that get slots; standalone adversarial kinds are leaves of their own."""
        return tuple(topic.path for topic in self._topics)

    def quota(self, target: int) -> dict[tuple[str, ...], int]:
        """The target (the shard's part) split over the leaves by their shares, in whole numbers that add up to it."""
        whole = dict(zip(self.leaves, apportion(target, self._shares), strict=True))
        return whole if self._shard is None else self._shard.quota(whole)

    def slots(self) -> Iterator[Slot]:
        """The sequence from its beginning, without end."""
        for draft in self._drafts():
            yield self._slot(draft)

    def take(self, wanted: Mapping[tuple[str, ...], int]) -> Iterator[Slot]:
        """The next slots, in the order of the sequence, for the leaves still wanted.

        Goes on where the last `take` of this planner ended; the slots it passes over wait (in numbers, 40 bytes
        each) and are the first to come when their leaf is wanted.

        Raises:
            ValueError: a leaf is wanted that gets no slots.
        """
        numbers = {path: number for number, path in enumerate(self.leaves)}
        if unknown := [path for path, count in wanted.items() if count > 0 and path not in numbers]:
            raise ValueError(f"no such leaves: {unknown}")
        left = {numbers[path]: count for path, count in wanted.items() if count > 0}
        return self._take(left)

    def _take(self, left: dict[int, int]) -> Iterator[Slot]:
        waiting = [(queue.first(), leaf) for leaf in left if (queue := self._skipped.get(leaf))]
        heapq.heapify(waiting)
        while waiting:
            _, leaf = heapq.heappop(waiting)
            queue = self._skipped[leaf]
            draft = queue.pop()
            left[leaf] -= 1
            if left[leaf] and queue:
                heapq.heappush(waiting, (queue.first(), leaf))
            yield self._slot(draft)
        missing = sum(left.values())
        if self._cursor is None:
            self._cursor = self._drafts() if self._shard is None else self._shard.deal(self._drafts())
        while missing:
            draft = next(self._cursor)
            leaf = draft[1]
            if left.get(leaf, 0) > 0:
                left[leaf] -= 1
                missing -= 1
                yield self._slot(draft)
            else:
                if leaf not in self._skipped:
                    self._skipped[leaf] = _Drafts(leaf, len(self._names) + 1)
                self._skipped[leaf].push(draft)

    def _drafts(self) -> Iterator[Draft]:
        turns = Interleave(self._shares, self._keys)
        balance = Balance(self._expected)
        twists, pool_of = self._twists, self._pool_of
        drawn = [0] * len(self._pools)
        paired = [0] * len(self._topics)
        key = key_of("values", self._seed)
        index = 0
        while True:
            leaf = turns.next()
            chosen = balance.choose(leaf, mix(key ^ index))
            kind = chosen[0]
            pool = pool_of[leaf][kind]
            draw = drawn[pool]
            drawn[pool] += 1
            other = -1
            if kind and twists[kind - 1].pair:
                other = paired[leaf]
                paired[leaf] += 1
            yield index, leaf, chosen, draw, other
            index += 1

    def _slot(self, draft: Draft) -> Slot:
        index, leaf, chosen, draw, other = draft
        kind, *values = chosen
        twist = self._twists[kind - 1] if kind else None
        seeds = self._pools[self._pool_of[leaf][kind]].draw(draw)
        return Slot(
            id=f"{self._name}-{index:06d}",
            index=index,
            topic=self._topics[leaf],
            dims={n: v[i] for n, v, i in zip(self._names, self._values, values, strict=True)},
            describe={n: d[i] for n, d, i in zip(self._names, self._descriptions, values, strict=True)},
            seeds=seeds,
            kind="adversarial" if twist else "standard",
            twist=twist.name if twist else None,
            twist_description=twist.description if twist else "",
            other=self._topics[self._second(leaf, other)] if other >= 0 else None,
            labels=self._labels_of(leaf, kind),
        )

    def _second(self, leaf: int, draw: int) -> int:
        """The second leaf: all others come once, shuffled, before one comes again."""
        others = len(self._taxonomy.leaves) - 1
        lap, position = divmod(draw, others)
        number = permuted(position, others, mix(self._keys[leaf] + lap))
        return number + (number >= leaf)

    def _labels_of(self, leaf: int, kind: int) -> Mapping[str, str]:
        known = self._labels.get((leaf, kind))
        if known is None:
            own: Mapping[str, str] = self._twists[kind - 1].labels if kind else {}
            known = self._labels[leaf, kind] = {**self._topics[leaf].labels, **own}
        return known

    def _odds(self, topic: Topic, share: Fraction) -> list[list[int]]:
        """Probabilities of kinds (the first is `standard`) and of values, for slots of one leaf."""
        standalone = [twist.name for twist in self._twists if twist.standalone]
        if topic.path[0] in standalone:
            kinds = [Fraction(0), *(Fraction(twist.name == topic.path[0]) for twist in self._twists)]
        else:
            kinds = [1 - share, *(Fraction(0) if t.standalone else share * t.share for t in self._twists)]
        weights = [[v.weight * v.allowed(topic.path) for v in d.values] for d in self._taxonomy.dimensions]
        return [odds(kinds), *(odds(values) for values in weights)]

    def _gather(self, seeds: tuple[Seed, ...], size: int) -> tuple[list[Pool], list[list[int]]]:
        """Seed pools, and [leaf][kind] -> number of its pool. Leaves that share a pool share its draws."""
        numbers: dict[tuple[Seed, ...], int] = {}
        pools: list[Pool] = []

        def number(pool: tuple[Seed, ...]) -> int:
            if pool not in numbers:
                numbers[pool] = len(pools)
                pools.append(Pool(pool, size, key_of("seeds", self._seed, *(seed.id for seed in pool[:64]))))
            return numbers[pool]

        own = [number(pool_for(topic.path, seeds)) for topic in self._topics]
        kinds = [number(twist.seeds) if twist.seeds else None for twist in self._twists]
        return pools, [[pool, *(pool if kind is None else kind for kind in kinds)] for pool in own]


class _Drafts:
    """Passed-over drafts of one leaf, packed into integers."""

    def __init__(self, leaf: int, values: int) -> None:
        self._leaf = leaf
        self._width = values + 3
        self._numbers = array("q")
        self._read = 0

    def __bool__(self) -> bool:
        return self._read < len(self._numbers)

    def first(self) -> int:
        """Index of the oldest draft."""
        return self._numbers[self._read]

    def push(self, draft: Draft) -> None:
        index, _, chosen, draw, other = draft
        self._numbers.extend((index, draw, other, *chosen))

    def pop(self) -> Draft:
        index, draw, other, *chosen = self._numbers[self._read : self._read + self._width]
        self._read += self._width
        if self._read > 1 << 14:  # give the memory of what was read back
            del self._numbers[: self._read]
            self._read = 0
        return index, self._leaf, chosen, draw, other


def _leaves(taxonomy: Taxonomy, twists: Sequence[Twist], share: Fraction) -> tuple[list[Topic], list[Fraction]]:
    """Topic leaves first, then standalone kinds, with shares that add up to 1. Leaves with no share are left out."""
    standalone = [twist for twist in twists if twist.standalone]
    own = share * sum((twist.share for twist in standalone), Fraction(0))
    topics = [leaf.topic for leaf in taxonomy.leaves]
    shares = [leaf.share * (1 - own) for leaf in taxonomy.leaves]
    if own == 1:
        topics, shares = [], []
    topics += [Topic((twist.name,), twist.description, dict(twist.labels)) for twist in standalone]
    shares += [share * twist.share for twist in standalone]
    return topics, shares
