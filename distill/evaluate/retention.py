"""What is kept of the teacher, and what it costs: score over score with its interval, price over price.

The interval of a ratio is that of a paired bootstrap: both systems are counted on the same draws of items. A cost is
money where the answers have a price; for a system on this machine it is the measured seconds, and money where the
machine's price for an hour is declared. Seconds count only where nothing was taken from a store.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from distill.evaluate.generation import Generated
from distill.evaluate.intervals import draws
from distill.evaluate.metrics import Counted
from distill.evaluate.saved import FAILURES

__all__ = ["Cost", "CostRatio", "Retention", "cost_of", "cost_ratio", "retention"]

_SURE_DRAWS = 0.975
"""Share of draws in which the reference has to be above 0 for the ratio to have an interval."""


@dataclass(frozen=True, slots=True)
class Retention:
    """`system` over `reference`, on the same items: 0.95 keeps 95 % of its score."""

    metric: str
    system: str
    reference: str
    value: float
    low: float | None
    high: float | None
    """95 % interval; None where the reference is too close to 0 for one."""


@dataclass(frozen=True, slots=True)
class Cost:
    """Of 1,000 requests like those of the holdout."""

    usd: float | None
    seconds: float | None
    """Of this machine, at the batch size of the evaluation; None for systems elsewhere and for stored answers."""
    basis: str


@dataclass(frozen=True, slots=True)
class CostRatio:
    """What a request costs `system`, over what it costs `reference`."""

    system: str
    reference: str
    value: float
    basis: str


def retention(
    system: str, ours: Mapping[str, Counted], reference: str, theirs: Mapping[str, Counted], *, seed: int = 0
) -> list[Retention]:
    """For every metric that both were counted by and in which the reference is above 0."""
    found: list[Retention] = []
    for metric, counted in ours.items():
        other = theirs.get(metric)
        if other is None or not other.value > 0 or math.isnan(counted.value):
            continue
        above, below = draws(counted, seed=seed), draws(other, seed=seed)
        defined = (below > 0) & ~np.isnan(above)  # a draw may hold no item that counts
        low = high = None
        if defined.mean() >= _SURE_DRAWS:
            low, high = (float(bound) for bound in np.percentile(above[defined] / below[defined], (2.5, 97.5)))
        found.append(Retention(metric, system, reference, counted.value / other.value, low, high))
    return found


def cost_of(generated: Generated, *, here: bool, usd_per_hour: float | None = None) -> Cost:
    """What 1,000 requests cost.

    Args:
        here: whether this machine did the work.
        usd_per_hour: the declared price of this machine.
    """
    answered = [prediction for prediction in generated.predictions if prediction.finish not in FAILURES]
    prices = [prediction.usd for prediction in answered if prediction.usd is not None]
    if answered and len(prices) == len(answered):
        spent = sum(prices) / len(answered) * 1000
        asked, told = sum(p.prompt_tokens for p in answered), sum(p.tokens for p in answered)
        return Cost(spent, None, f"its price, for {asked:,} tokens in and {told:,} out")
    if not here:
        return Cost(None, None, "its price is not known")
    if not generated.timed or not answered or generated.seconds <= 0:
        return Cost(None, None, "not timed: answers were stored ones")
    seconds = generated.seconds / len(answered) * 1000
    if usd_per_hour is None:
        return Cost(None, seconds, "measured seconds; the machine's price is not declared")
    return Cost(seconds / 3600 * usd_per_hour, seconds, f"measured seconds at {usd_per_hour:g} USD an hour")


def cost_ratio(system: str, ours: Cost, reference: str, theirs: Cost) -> CostRatio | None:
    """By money where both have a price, else by seconds where both ran here; None where neither can be said."""
    if ours.usd is not None and theirs.usd:
        basis = ours.basis if ours.basis == theirs.basis else f"{ours.basis}, against {theirs.basis}"
        return CostRatio(system, reference, ours.usd / theirs.usd, f"USD: {basis}")
    if ours.seconds is not None and theirs.seconds:
        return CostRatio(system, reference, ours.seconds / theirs.seconds, "seconds of this machine")
    return None
