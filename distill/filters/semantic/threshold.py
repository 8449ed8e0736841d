"""Where "says the same" begins, measured on the user's own rows.

No cosine means the same thing everywhere: rows about anything lie at 0.5 from their nearest neighbour, rows of one
domain at 0.9. So the similarity of each sampled row to its nearest neighbour is taken, and of these the part that stems
from rows which repeat nothing:

    no `apart`   The lower half of the similarities (its median and lower quartile: duplicates all lie above) gives the
                 centre and spread of a normal distribution; the threshold is where it has `rate` left. Rows above the
                 threshold are set aside and the fit is repeated until it stands. What lies close by nature pushes
                 the threshold up, out of reach in the end: then nothing is removed.
    `apart`      The nearest neighbour with another value of that column is unrelated by declaration; the threshold is
                 the quantile that leaves `rate`.

The more rows there are, the closer the nearest of the unrelated ones lies: how much it gains with twice the rows is
measured too, and the threshold rises by that with every doubling beyond the sample.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["FLOOR", "LEAST_ROWS", "Calibration", "calibrate"]

FLOOR = 0.8
"""`auto` never goes below: what is less similar is about the same thing at best."""
LEAST_ROWS = 100
"""Different texts that a calibration needs."""

_REACH = 0.99  # beyond it nothing but the same words in another order is left
_CLOSE = 0.75  # typical similarity from which rows count as lying close together
_TAKES = 0.1  # share of rows whose loss is worth a warning
_BLOCK = 1024
_NORMAL = NormalDist()


@dataclass(frozen=True, slots=True)
class Calibration:
    """A measured threshold."""

    threshold: float
    """For as many rows as were looked at; over 0.99 there is none that keeps its promise."""
    rate: float
    rows: int
    typical: float
    """Median similarity of a row to its nearest neighbour, duplicates set aside."""
    per_doubling: float
    """What the threshold gains with twice the rows."""
    apart: str | None
    nearest: NDArray[np.float32]
    """Similarity of each row looked at to its nearest neighbour of any kind."""

    @property
    def separates(self) -> bool:
        """False when rows lie so close that no similarity tells a repetition from a neighbour."""
        return self.threshold <= _REACH

    def at(self, rows: int) -> float:
        """The threshold when `rows` rows have been judged; over 1 where nothing may be removed. It moves at doublings
        only."""
        steps = 0
        while self.rows << steps < rows:
            steps += 1
        value = self.threshold + steps * self.per_doubling
        return value if value <= _REACH else 2.0

    def share_over(self, threshold: float) -> float:
        """Share of the rows looked at that have a neighbour at or over it."""
        return float((self.nearest >= threshold).mean())

    def warning(self, given: float | None) -> str | None:
        """What a user should know before rows are removed at the `given` threshold, or at this one."""
        where = f"a row's nearest neighbour is typically at {self.typical:.2f}"
        if given is not None:
            share = self.share_over(given)
            if share < _TAKES:
                return None
            better = f"`threshold: auto` would take {self.threshold:.3f}" if self.separates else "no threshold would"
            return (
                f"{share:.0%} of the sampled rows have a neighbour at or over {given:g} ({where}), so many unrelated "
                f"rows may fall; to lose at most {self.rate:.1%} of them {better}"
            )
        if not self.separates:
            return (
                f"the rows lie so close together ({where}) that similarity cannot tell a repetition from a neighbour "
                f"at a rate of {self.rate:.1%}: nothing is removed. Set a threshold, or name a column whose different "
                "values make rows unrelated (`apart`)"
            )
        share = self.share_over(self.threshold)
        if 0 < share <= self.rate:
            return (
                f"{where}; {share:.1%} of the sampled rows have one at {self.threshold:.3f} or over, no more than "
                f"unrelated rows would ({self.rate:.1%}): what falls may be unrelated. Few rows say the same, or this "
                "model does not see that they do"
            )
        if share >= _TAKES or self.typical >= _CLOSE:
            return (
                f"{where}; about {share:.0%} of the sampled rows have one at {self.threshold:.3f} or over and may fall"
            )
        return None

    def as_json(self) -> dict[str, Any]:
        return {
            "threshold": round(self.threshold, 4) if self.separates else None,
            "rate": self.rate,
            "rows": self.rows,
            "measured_on": f"rows apart by {self.apart}" if self.apart else "nearest neighbours",
            "typical_similarity": round(self.typical, 4),
            "per_doubling": round(self.per_doubling, 4),
            "share_with_a_neighbour": round(self.share_over(self.threshold), 4),
        }


def calibrate(
    vectors: NDArray[np.float32], rate: float, *, groups: NDArray[np.int64] | None = None, apart: str | None = None
) -> Calibration | None:
    """The threshold at which at most `rate` of the rows that repeat nothing have a neighbour.

    Args:
        vectors: shape (n, d), rows of unit length, of different texts, in an order that says nothing.
        groups: shape (n,), the value of the `apart` column of each row.

    Returns:
        None for too few rows.
    """
    usable = vectors.any(axis=1)
    vectors, groups = vectors[usable], groups[usable] if groups is not None else None
    n = len(vectors)
    if n < LEAST_ROWS or (groups is not None and len(np.unique(groups)) < 2):
        return None
    everything = _nearest(vectors, None)
    unrelated = everything if groups is None else _nearest(vectors, groups)
    halves = [_nearest(vectors[half::2], groups[half::2] if groups is not None else None) for half in (0, 1)]
    gain = max(0.0, float(np.median(unrelated) - np.median(np.concatenate(halves))))
    if groups is None:
        threshold, typical = _fit(unrelated, rate)
    else:
        threshold, typical = float(np.quantile(unrelated, 1 - rate)), float(np.median(unrelated))
    return Calibration(max(threshold, FLOOR), rate, n, typical, gain, apart, everything)


def _fit(nearest: NDArray[np.float32], rate: float) -> tuple[float, float]:
    """Threshold and centre of the similarities that stem from unrelated rows."""
    threshold, centre = math.inf, float(np.median(nearest))
    # Without the rows over the threshold, the others are the lower 1 - rate of the distribution.
    low, middle = (_NORMAL.inv_cdf(share * (1 - rate)) for share in (0.25, 0.5))
    for _ in range(50):
        rest = nearest[nearest < threshold]
        if len(rest) < LEAST_ROWS // 2:
            break
        quartile, median = np.quantile(rest, [0.25, 0.5])
        spread = float(median - quartile) / (middle - low)
        centre = float(median) - middle * spread
        before, threshold = threshold, centre + _NORMAL.inv_cdf(1 - rate) * spread
        if abs(before - threshold) < 1e-4:
            break
    return threshold, centre


def _nearest(vectors: NDArray[np.float32], groups: NDArray[np.int64] | None) -> NDArray[np.float32]:
    """Cosine of each row to its nearest neighbour (in another group)."""
    best = np.full(len(vectors), -1.0, np.float32)
    for start in range(0, len(vectors), _BLOCK):
        products = vectors[start : start + _BLOCK] @ vectors.T
        own = np.arange(start, start + len(products))
        products[np.arange(len(products)), own] = -1
        if groups is not None:
            products[groups[own][:, None] == groups[None, :]] = -1
        best[own] = products.max(axis=1)
    return best
