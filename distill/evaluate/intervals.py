"""How sure a figure is: bootstrap intervals, and the chance that two systems differ by luck.

Items are drawn with replacement and all systems are counted on the same draws, so that the interval of a difference
is a paired one. p-values: McNemar's exact test where an item is right or wrong (the two-sided binomial over the items
on which the systems disagree), else a paired permutation test that swaps the two systems' predictions item by item.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from distill.evaluate.metrics import Counted, Floats, Metric

__all__ = ["Difference", "Interval", "compare", "draws", "interval"]

_DRAWS = 2000
_SWAPS = 10_000  # the least p-value there can be, 1/10,001, has to survive the correction for many comparisons
_BLOCK = 200
_KEPT = 10_000  # items: 40 MB of weights


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
    p_adjusted: float | None = None
    """Corrected for all differences that were looked at together (Holm); None where this one stands alone."""


def interval(counted: Counted, *, seed: int = 0) -> Interval:
    """The value and its percentile interval."""
    return Interval(counted.value, *_middle(draws(counted, seed=seed)))


def compare(metric: Metric, system: str, ours: Counted, against: str, theirs: Counted, *, seed: int = 0) -> Difference:
    """The paired difference of two systems."""
    spread = draws(ours, seed=seed) - draws(theirs, seed=seed)
    low, high = _middle(spread)
    same_items = bool((ours.counts == theirs.counts).all())
    if same_items and ours.right_or_wrong and theirs.right_or_wrong:
        p_value, test = _mcnemar(ours.right[ours.counts], theirs.right[ours.counts]), "McNemar exact"
    else:
        p_value, test = _permutation(ours, theirs, seed=seed), "permutation"
    return Difference(metric.name, system, against, ours.value - theirs.value, low, high, p_value, test)


def draws(counted: Counted, *, seed: int) -> Floats:
    """Values of 2,000 resampled holdouts; equal seeds draw the same items for every system. Not a number where a draw
    holds no item that counts."""
    blocks = _weights(len(counted.sums), seed)
    return np.concatenate([counted.reduce(block.astype(np.float64) @ counted.sums) for block in blocks])


def _weights(n: int, seed: int) -> Iterable[NDArray[np.uint16]]:
    """How often each of `n` items is drawn, in blocks of resampled holdouts."""
    return _kept_weights(n, seed) if n <= _KEPT else _made_weights(n, seed)


def _made_weights(n: int, seed: int) -> Iterator[NDArray[np.uint16]]:
    random = np.random.default_rng(seed)
    for _ in range(_DRAWS // _BLOCK):  # blocks keep the weights of a large holdout small
        yield random.multinomial(n, np.full(n, 1 / n), size=_BLOCK).astype(np.uint16)


@lru_cache(maxsize=2)
def _kept_weights(n: int, seed: int) -> tuple[NDArray[np.uint16], ...]:
    """Drawing them takes longer than using them, and all metrics of all systems use the same ones."""
    return tuple(_made_weights(n, seed))


def _middle(values: Floats) -> tuple[float, float]:
    """Bounds of the middle 95 %."""
    known = values[~np.isnan(values)]
    if len(known) == 0:
        return float("nan"), float("nan")
    low, high = np.percentile(known, (2.5, 97.5))
    return float(low), float(high)


def _permutation(ours: Counted, theirs: Counted, *, seed: int) -> float:
    random = np.random.default_rng(seed)
    seen = abs(ours.value - theirs.value)
    step = ours.sums - theirs.sums
    extreme = 0
    for _ in range(_SWAPS // _BLOCK):
        swap = random.integers(0, 2, size=(_BLOCK, len(step))).astype(np.float64)
        a, b = ours.sums.sum(0) - swap @ step, theirs.sums.sum(0) + swap @ step
        # A swap that leaves a side without an item that counts says nothing against luck: it counts as extreme.
        extreme += int((~(np.abs(ours.reduce(a) - theirs.reduce(b)) < seen - 1e-12)).sum())
    return (extreme + 1) / (_SWAPS + 1)


def _mcnemar(ours: Floats, theirs: Floats) -> float:
    only_ours = int(((ours == 1) & (theirs == 0)).sum())
    only_theirs = int(((ours == 0) & (theirs == 1)).sum())
    n, least = only_ours + only_theirs, min(only_ours, only_theirs)
    tail = sum(math.comb(n, k) for k in range(least + 1)) / 2**n
    return min(1.0, 2 * tail)
