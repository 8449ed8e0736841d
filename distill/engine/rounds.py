"""How many slots a round plans: quotas are filled, and a leaf that stops yielding is said to.

The first round plans what the target needs if rows are accepted as often as the recipe expects (always, where it
does not say). Every later round plans, leaf by leaf, what is still missing over what the leaf has yielded so far, a
leaf of few slots being taken for a usual one. Nothing here depends on time or order of arrival, so replayed rounds plan
the same slots.
"""

from __future__ import annotations

import math

from distill.engine.accounting import Account

__all__ = ["BARREN_ROUNDS", "plan_round"]

BARREN_ROUNDS = 2
"""Rounds without one kept row after which a leaf is given up."""

_MOST_PER_MISSING = 8
"""Slots a round plans for one missing row at most: a leaf that accepts one row in fifty must not eat the budget
before anybody has seen that it does."""

_MOST_WHEN_BARREN = 64
"""Slots a round plans at most (or as many as the first one) for a leaf that has kept nothing yet."""


def plan_round(account: Account, *, rows_per_slot: float, expected_yield: float = 1.0) -> dict[tuple[str, ...], int]:
    """Slots wanted of each leaf; empty when there is nothing left to do or nothing that helps.

    Args:
        rows_per_slot: rows a slot makes when all goes well; plans leaves that were never tried.
        expected_yield: share of them that will be kept, as long as nothing is known of a leaf.
    """
    usual = account.rows_per_slot
    wanted: dict[tuple[str, ...], int] = {}
    for leaf, count in account.leaves.items():
        if not count.missing or count.barren_rounds >= BARREN_ROUNDS:
            continue
        if count.slots == 0:
            wanted[leaf] = math.ceil(count.missing / (rows_per_slot * expected_yield))
            continue
        expected = min(count.rows_per_slot(usual), rows_per_slot)
        wanted[leaf] = min(math.ceil(count.missing / expected), _MOST_PER_MISSING * count.missing)
        if not count.kept:
            wanted[leaf] = min(wanted[leaf], max(_MOST_WHEN_BARREN, math.ceil(count.missing / rows_per_slot)))
    return wanted
