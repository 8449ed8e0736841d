"""The score at which a row counts as a leak, from rows that may hold leaks themselves.

Scores of clean rows depend on what the rows and the eval set are about: one in a hundred clean grade-school problems
scores 0.45 with the items of a set of such problems, one in a hundred bank messages 0.25. So a threshold is set by the
user's own rows, to a rate of clean rows lost.

Rows known to be clean: their quantile. Rows as they come: the best scores above their 90th percentile are seen as two
kinds, clean ones, whose excess falls off exponentially, and leaks around some mean of at least `LEAK`; expectation
maximisation (Dempster, Laird and Rubin 1977) gives every row its weight as a clean one, and the quantile is that of
the weighted rows. What starts it is robust: a row whose best item stands far before its second, measured by the
distance of the second to the third, which a leak leaves untouched, counts as a leak at first.

Measured on held-out clean rows of GSM8K with 0, 2, 10 and 30 % of paraphrased items among 3,736 rows: 0.007 for a
requested 0.01; 400 rows are too few for a factor of two. Beyond a half of leaks nothing can be said from the rows; a
set whose paraphrases score no higher than clean rows (code) makes the threshold too high when many are there, never too
low.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["LEAK", "LEAST_ROWS", "Scored", "aimed", "common_rate", "threshold", "weights"]

F64 = NDArray[np.float64]

LEAST_ROWS = 200
"""Rows below which no threshold is set."""

LEAK = 0.45
"""What leaks score on average in the stage `paraphrase`, at least."""

_TOP = 0.1
_ROUNDS = 300


@dataclass(frozen=True, slots=True)
class Scored:
    """Best scores of n rows, and their weights as clean ones."""

    best: F64
    clean: F64
    """Shape (n,), 0 to 1."""


def weights(best: F64, runners: F64, rate: float, *, leak: float = LEAK) -> F64:
    """How sure it is that each row is clean.

    Args:
        best: shape (n,), the best score of each row.
        runners: shape (n, 2), the scores of the next two items; NaN where there is none.
        rate: the rate of false positives that is wanted.
        leak: what leaks score on average, at least.
    """
    second = np.where(np.isnan(runners[:, 0]), best, runners[:, 0])
    third = np.where(np.isnan(runners[:, 1]), second, runners[:, 1])
    gap, unit = best - second, 2 * float(np.median(second - third))
    likely = (gap <= 5 * unit) | (best < leak)
    if likely.sum() < 50:
        likely = gap <= np.median(gap)
    base = float(np.quantile(best[likely], 1 - min(max(_TOP, 3 * rate), 0.5)))
    above = best > base
    excess = best[above] - base
    clean = np.ones(len(best))
    if not len(excess):
        return clean
    least = max(leak - base, 0.0)
    usual = excess[excess <= max(float(np.quantile(best[likely], 0.99)) - base, 1e-3)]
    scale = max(float(np.median(usual)) / np.log(2), 1e-3) if len(usual) else 0.05
    far = excess > max(least, 4 * scale)
    clean[above] = _part(excess, scale, far, least)
    return clean


def _part(excess: F64, scale: float, far: NDArray[np.bool_], least: float) -> F64:
    """Weights of an exponential kind against a normal one whose mean is at least `least`."""
    weight = np.where(far, 0.0, 1.0)
    mean, spread = max(float(np.median(excess[far])) if far.sum() > 5 else 2 * least, least), 0.15
    for _ in range(_ROUNDS):
        share, before = float(weight.mean()), scale
        scale = max(float((weight * excess).sum() / max(weight.sum(), 1e-9)), 1e-3)
        other = 1 - weight
        if other.sum() > 1:
            mean = max(float((other * excess).sum() / other.sum()), least)
            spread = max(float(np.sqrt((other * (excess - mean) ** 2).sum() / other.sum())), 0.05)
        leak = (1 - share) * np.exp(-0.5 * ((excess - mean) / spread) ** 2) / (spread * np.sqrt(2 * np.pi))
        own = share * np.exp(-excess / scale) / scale
        weight = own / np.maximum(own + leak, 1e-300)
        if abs(scale - before) < 1e-6:
            break
    return weight


def aimed(rate: float, rows: float, *, known: bool = False) -> float:
    """The rate to aim at, so that the wanted one is seldom passed: one standard error of the count below it; half of
    one with rows `known` to be clean, which leave nothing else to be unsure of."""
    errors = 0.5 if known else 1.0
    return rate * max(1 - 0.3 * errors, 1 - errors / np.sqrt(max(rate * rows, 1.0)))


def threshold(scored: Scored, rate: float) -> float:
    """The score that a share `rate` of the clean rows reaches."""
    order = np.argsort(-scored.best, kind="stable")
    reached: F64 = np.cumsum(scored.clean[order])
    # The first row that would be one too many must stay below.
    place = int(np.count_nonzero(reached <= rate * reached[-1]))
    best: list[float] = scored.best[order].tolist()
    return math.nextafter(best[min(place, len(best) - 1)], math.inf)


def common_rate(scored: Sequence[Scored], rate: float, *, known: bool = False) -> float:
    """The rate for each of several comparisons of the same rows, so that together they stay at `rate`: rows that one of
    them hits are often hit by another."""
    clean = np.minimum.reduce([one.clean for one in scored])
    rate = aimed(rate, float(clean.sum()), known=known)
    if len(scored) == 1:
        return rate
    low, high = rate / len(scored), rate
    for _ in range(12):
        middle = (low + high) / 2
        hit = np.logical_or.reduce([one.best >= threshold(one, middle) for one in scored])
        low, high = (middle, high) if (clean * hit).sum() <= rate * clean.sum() else (low, middle)
    return low
