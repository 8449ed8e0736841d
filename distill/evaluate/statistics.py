"""Which differences are real: every pair of systems that matters, corrected for how many were looked at.

The subject is compared with all others, and all others with the system they are held against (the first, unless
another is named). Of m comparisons at once, one in twenty looks sure by luck alone: Holm's step-down correction
(Holm 1979) over all of a scorecard's p-values keeps the chance of any false claim below 5 %. Groups (leaves,
difficulties) are a family of their own; of one with fewer than `FEW` items nothing is claimed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from distill.evaluate.holdout import Item
from distill.evaluate.intervals import Difference, compare
from distill.evaluate.metrics import Counted, Metric
from distill.evaluate.metrics.base import shares

__all__ = ["FEW", "GroupDifference", "differences", "group_differences", "grouped", "holm"]

FEW = 20
"""Items below which nothing is claimed of a group."""

_By = Mapping[str, Mapping[str, Counted]]
"""System -> metric -> what was counted."""


@dataclass(frozen=True, slots=True)
class GroupDifference:
    """`system` minus `against` on the items of one group."""

    by: str
    """`leaf` or `difficulty`."""
    group: str
    n: int
    metric: str
    system: str
    against: str
    value: float
    low: float | None = None
    high: float | None = None
    p_value: float | None = None
    p_adjusted: float | None = None
    """None, like the bounds: too few items for a claim."""


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjusted p-values, in the order given; at most 1."""
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    adjusted, largest = [1.0] * len(p_values), 0.0
    for rank, i in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[i]))
        adjusted[i] = largest
    return adjusted


def differences(
    metrics: Sequence[Metric], counted: _By, subject: str, against: str | None = None, *, seed: int = 0
) -> tuple[Difference, ...]:
    """The subject against all others, then all others against `against`, with p-values corrected over all of them."""
    found = [
        compare(metric, system, counted[system][metric.name], other, counted[other][metric.name], seed=seed)
        for system, other in _pairs(list(counted), subject, against)
        for metric in metrics
    ]
    adjusted = holm([difference.p_value for difference in found])
    return tuple(replace(d, p_adjusted=p) for d, p in zip(found, adjusted, strict=True))


def group_differences(
    items: Sequence[Item],
    metrics: Sequence[Metric],
    counted: _By,
    subject: str,
    against: str | None = None,
    *,
    seed: int = 0,
) -> tuple[GroupDifference, ...]:
    """The subject against the system it is held against, leaf by leaf and difficulty by difficulty."""
    other = against or next(iter(counted))
    if other == subject:
        return ()
    found: list[GroupDifference] = []
    for by, names in (("leaf", [i.leaf for i in items]), ("difficulty", [i.difficulty for i in items])):
        for group in sorted(set(names) - {""}):
            rows = np.array([position for position, name in enumerate(names) if name == group])
            for metric in metrics:
                ours, theirs = (_of_items(counted[s][metric.name].only(rows)) for s in (subject, other))
                if not (ours.counts.any() and theirs.counts.any()):
                    continue
                n = int((ours.counts & theirs.counts).sum())
                if n < FEW:
                    value = _share(ours) - _share(theirs)
                    found.append(GroupDifference(by, group, n, metric.name, subject, other, value))
                    continue
                d = compare(metric, subject, ours, other, theirs, seed=seed)
                found.append(
                    GroupDifference(by, group, n, metric.name, subject, other, d.value, d.low, d.high, d.p_value)
                )
    sure = [k for k, each in enumerate(found) if each.p_value is not None]
    for k, p in zip(sure, holm([found[k].p_value or 0.0 for k in sure]), strict=True):
        found[k] = replace(found[k], p_adjusted=p)
    return tuple(found)


def grouped(groups: Sequence[str], counted: Mapping[str, Counted]) -> dict[str, dict[str, float]]:
    """Group -> `n`, and per metric the mean of the items' figures; a metric that counts none of them is left out."""
    table: dict[str, dict[str, float]] = {}
    for group in sorted(set(groups) - {""}):
        rows = np.array([position for position, name in enumerate(groups) if name == group])
        parts = {name: count.only(rows) for name, count in counted.items()}
        means = {name: round(_share(part), 4) for name, part in parts.items() if part.counts.any()}
        table[group] = {"n": len(rows), **means}
    return table


def _of_items(counted: Counted) -> Counted:
    """The mean of the items' figures, as the tables of groups show it: a leaf has one class, and no F1 of its own."""
    return counted if counted.plain else shares(counted.right, counted.weight)


def _share(counted: Counted) -> float:
    return float(counted.right[counted.counts].mean())


def _pairs(names: Sequence[str], subject: str, against: str | None) -> list[tuple[str, str]]:
    base = against or names[0]
    ours = [(subject, other) for other in names if other != subject]
    # A pair is told once, from the subject's side where it is one of the two.
    return ours + [(system, base) for system in names if system not in (base, subject) and base != subject]
