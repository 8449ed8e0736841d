"""Which values a slot gets: every value, and every pair of values, evenly covered at every prefix.

For every context a value is counted in (overall, with the slot's leaf, with each value of every other dimension)
there is a running deficit: how often the value should have come there by now, less how often it did. A slot gets
the values whose summed deficits are largest, chosen one dimension after the other and then (but for the first,
whose own counts go before) once more, each given the rest: the steepest descent on the sum of squared deficits.
Independent draws would leave every deficit where it is on average, so the descent cannot run away: deficits stay
within a few slots however long the sequence grows, where those of independent draws grow with its square root.
Constraints enter through the expectations: a value that may not come under a leaf is not expected there.

The deficits of a context are one integer of 64-bit lanes, one a value, in units of 2**-30 slots: adding two such
integers adds all lanes at once. Whole numbers also make the sequence the same on every machine.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from fractions import Fraction

from distill.planning.interleave import apportion

__all__ = ["UNIT", "Balance", "odds"]

UNIT = 1 << 30
"""One slot, in the units of deficits."""

_LANE = 64
_BIAS = 1 << 62
"""Added to every lane before it is read, as what is read must not be negative; half of it to the lanes of values that
may not come, so that they never win."""

_SINGLES = 2
"""How much the counts of a value, overall and with its leaf, weigh against the count of one pair."""

_FIRST = 4
"""How much more the first dimension's counts over all slots weigh: it holds the kinds, whose share is promised."""


def odds(weights: Sequence[Fraction]) -> list[int]:
    """Probabilities for weights (0: never), in whole units that add up to `UNIT`."""
    total = sum(weights, Fraction(0))
    return apportion(UNIT, [weight / total for weight in weights])


class Balance:
    """Deficits of all contexts, and the choice.

    Args:
        expected: [leaf][dimension][value] -> probability of the value in a slot of that leaf, in units.
    """

    def __init__(self, expected: Sequence[Sequence[Sequence[int]]]) -> None:
        sizes = [len(values) for values in expected[0]]
        self._open = [d for d, size in enumerate(sizes) if size > 1]
        self._readers = [(struct.Struct(f"<{size}Q"), size * _LANE // 8) for size in sizes]
        # What a choice does to the deficits of its context: every value was expected, one of them came.
        self._steps = [
            [[_pack(values) - (UNIT << v * _LANE) for v in range(len(values))] for values in leaf] for leaf in expected
        ]
        self._biases = [[_pack([_BIAS if p else _BIAS >> 1 for p in values]) for values in leaf] for leaf in expected]
        self._overall = [0] * len(sizes)
        self._by_leaf = [[0] * len(sizes) for _ in expected]
        # _pairs[d][e][v]: deficits of the values of d in slots whose dimension e has value v; not read for e = d.
        self._pairs = [[[0] * size for size in sizes] for _ in sizes]

    def choose(self, leaf: int, bits: int) -> list[int]:
        """Value numbers for the next slot of `leaf`, one a dimension; `bits` decides between equals."""
        pairs, overall, by_leaf, readers = self._pairs, self._overall, self._by_leaf[leaf], self._readers
        totals = [
            bias + _SINGLES * (everywhere + here)
            for bias, everywhere, here in zip(self._biases[leaf], overall, by_leaf, strict=True)
        ]
        totals[0] += _FIRST * overall[0]
        chosen = [0] * len(totals)
        taken: list[int] = []
        for d in self._open:
            total = totals[d]
            tables = pairs[d]
            for e in taken:
                total += tables[e][chosen[e]]
            totals[d] = total
            taken.append(d)
            reader, size = readers[d]
            scores = reader.unpack(total.to_bytes(size, "little"))
            top = max(scores)
            best = scores.index(top)
            equals = scores.count(top)
            if equals > 1:
                bits, nth = divmod(bits, equals)
                for _ in range(nth):
                    best = scores.index(top, best + 1)
            chosen[d] = best
        for position, d in enumerate(taken):
            if d == 0:
                continue
            later = taken[position + 1 :]
            total = totals[d]
            tables = pairs[d]
            for e in later:
                total += tables[e][chosen[e]]
            reader, size = readers[d]
            scores = reader.unpack(total.to_bytes(size, "little"))
            before = chosen[d]
            top = max(scores)
            if scores[before] != top:
                chosen[d] = best = scores.index(top)
                for e in later:
                    table = pairs[e][d]
                    totals[e] += table[best] - table[before]
        for d in taken:
            step = self._steps[leaf][d][chosen[d]]
            overall[d] += step
            by_leaf[d] += step
            tables = pairs[d]
            for e in taken:
                tables[e][chosen[e]] += step
        return chosen


def _pack(lanes: Sequence[int]) -> int:
    return sum(lane << number * _LANE for number, lane in enumerate(lanes))
