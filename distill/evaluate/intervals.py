"""How sure a figure is: bootstrap intervals, and the chance that two systems differ by luck.

Items are drawn with replacement and all systems are counted on the same draws, so that the interval of a difference
is a paired one. p-values: McNemar's exact test where an item is right or wrong (the two-sided binomial over the items
on which the systems disagree), else a paired permutation test that swaps the two systems' predictions item by item.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from distill.evaluate.metrics import Counted, Floats, Metric

__all__ = ["Difference", "Interval", "compare", "interval"]

_DRAWS = 2000
_BLOCK = 200


@dataclass(frozen=True, slots=True)
class Interval:
    """A value with the bounds of its 95 % bootstrap interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Difference:
    """`system` minus `against`, on the same items."""

    metric: str
    system: str
    against: str
    value: float
    low: float
    high: float
    p_value: float
    test: str


def interval(counted: Counted, *, seed: int = 0) -> Interval:
    """The value and its percentile interval."""
    low, high = np.percentile(_draws(counted, seed=seed), (2.5, 97.5))
    return Interval(counted.value, float(low), float(high))


def compare(metric: Metric, system: str, ours: Counted, against: str, theirs: Counted, *, seed: int = 0) -> Difference:
    """The paired difference of two systems."""
    spread = _draws(ours, seed=seed) - _draws(theirs, seed=seed)
    low, high = np.percentile(spread, (2.5, 97.5))
    if metric.kind == "macro_f1":
        p_value, test = _permutation(ours, theirs, seed=seed), "permutation"
    else:
        p_value, test = _mcnemar(ours.right, theirs.right), "McNemar exact"
    return Difference(metric.name, system, against, ours.value - theirs.value, float(low), float(high), p_value, test)


def _draws(counted: Counted, *, seed: int) -> Floats:
    n = len(counted.sums)
    random = np.random.default_rng(seed)
    values: list[Floats] = []
    for _ in range(_DRAWS // _BLOCK):  # blocks keep the weights of a large holdout small
        weights = random.multinomial(n, np.full(n, 1 / n), size=_BLOCK).astype(np.float64)
        values.append(counted.reduce(weights @ counted.sums))
    return np.concatenate(values)


def _permutation(ours: Counted, theirs: Counted, *, seed: int) -> float:
    random = np.random.default_rng(seed)
    seen = abs(ours.value - theirs.value)
    step = ours.sums - theirs.sums
    extreme = 0
    for _ in range(_DRAWS // _BLOCK):
        swap = random.integers(0, 2, size=(_BLOCK, len(step))).astype(np.float64)
        a, b = ours.sums.sum(0) - swap @ step, theirs.sums.sum(0) + swap @ step
        extreme += int((np.abs(ours.reduce(a) - theirs.reduce(b)) >= seen - 1e-12).sum())
    return (extreme + 1) / (_DRAWS + 1)


def _mcnemar(ours: Floats, theirs: Floats) -> float:
    only_ours = int(((ours == 1) & (theirs == 0)).sum())
    only_theirs = int(((ours == 0) & (theirs == 1)).sum())
    n, least = only_ours + only_theirs, min(only_ours, only_theirs)
    tail = sum(math.comb(n, k) for k in range(least + 1)) / 2**n
    return min(1.0, 2 * tail)
