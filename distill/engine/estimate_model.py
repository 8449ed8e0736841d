"""From a pilot to a whole run: many runs are played through with what the pilot saw, rounds and quotas included.

Every play draws its own idea of how often each slot of the pilot stands for one of the run (a Bayesian bootstrap:
Dirichlet weights; Rubin, "The Bayesian Bootstrap", 1981), then the slots of every round from it, and counts them with
the run's own rules (`plan_round`, quotas). So the spread of the plays holds both what the pilot does not know and what
chance does. Two things that a small pilot cannot show are put in:

- Slots that fail in ways not seen yet: refusals are cheaper than the pilot's mean, answers cut at max_tokens dearer.
  Where the pilot has none that was cut, they weigh as much as one slot (the rule of succession). In every third play
  there are none of them: most runs fail as their pilots did.
- Repeats, which grow with the number of rows: the chance that a row is new is at most the share of rows seen once
  (Good, "The Population Frequencies of Species", 1953).

Intervals are the 3rd to the 97th percentile: bootstrap intervals from a few dozen slots are too narrow, and what is
called 80 % here shall hold at least that often.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from distill.engine.accounting import Account
from distill.engine.estimate_pilot import Trial
from distill.engine.rounds import plan_round

__all__ = ["Interval", "Plays", "interval", "play"]

Floats = NDArray[np.float64]

_LOW, _HIGH = 3.0, 97.0
_UNSEEN = (0.25, 1.0, 2.0)
"""What slots that were not seen use, in means of the pilot's: refused, failed otherwise, cut."""
_CUT = "failed: length"
_NOTHING_UNSEEN = 1 / 3  # share of plays in which the run fails in no other ways than its pilot did
_LEAF_TRUST = 10.0  # slots of a leaf at which its own trials weigh as much as all together


@dataclass(frozen=True, slots=True)
class Interval:
    """A middle value and at least 80 %."""

    low: float
    mid: float
    high: float


def interval(values: Floats) -> Interval:
    """Of one figure over all plays."""
    low, mid, high = np.percentile(values, (_LOW, 50.0, _HIGH))
    return Interval(float(low), float(mid), float(high))


@dataclass(frozen=True, slots=True)
class Plays:
    """Figures of n plays, the pilot's own slots included."""

    slots: Floats
    kept: Floats
    rounds: Floats
    used: Floats
    """Shape (n, columns): sums of what slots use."""
    by_round: Floats
    """Shape (n, rounds, columns): the same by round."""


def play(
    trials: Sequence[Trial],
    used: Floats,
    quota: Mapping[tuple[str, ...], int],
    *,
    rows_per_slot: float,
    expected_yield: float,
    target: int,
    max_rounds: int,
    by_leaf: bool,
    new_share: tuple[int, int],
    plays: int,
    seed: int,
) -> Plays:
    """Play the run through `plays` times.

    Args:
        trials: the pilot's slots, which the run's first round begins with.
        used: shape (trials, columns), what each of them used; any columns.
        new_share: of the pilot's kept rows, those that nothing repeated and those that something did.
    """
    chance = np.random.default_rng(seed)
    unseen = len(_UNSEEN)
    kept_of = np.array([trial.kept for trial in trials] + [0] * unseen, float)
    usage = np.vstack([used, np.outer(_UNSEEN, used.mean(axis=0))])
    leaves = [trial.leaf for trial in trials]
    own = {leaf: np.array([each == leaf for each in leaves] + [False] * unseen) for leaf in set(leaves)}
    done = {leaf: int(mask.sum()) for leaf, mask in own.items()}
    alpha = np.ones(len(trials) + unseen)
    alpha[-unseen:] = 1 / unseen
    if not any(_CUT in trial.lost for trial in trials):
        alpha[-1] = 1.0
    shape = (plays, max_rounds, usage.shape[1])
    slots, kept, rounds, by_round = np.zeros(plays), np.zeros(plays), np.zeros(plays), np.zeros(shape)
    for n in range(plays):
        weights = chance.dirichlet(alpha)
        if chance.random() < _NOTHING_UNSEEN:
            weights[-unseen:] = 0.0
            weights /= weights.sum()
        new = chance.beta(new_share[0] + 0.5, new_share[1] + 0.5) if new_share[1] else 1.0
        account = Account.open(quota)
        while account.kept < target and account.rounds < max_rounds:
            wanted = plan_round(account, rows_per_slot=rows_per_slot, expected_yield=expected_yield)
            if not wanted:
                break
            first = account.rounds == 0
            for leaf, count in wanted.items():
                piloted = min(done.get(leaf, 0), count) if first else 0
                drawn = chance.multinomial(count - piloted, _of_leaf(weights, own.get(leaf), done.get(leaf, 0)))
                good = float(drawn @ kept_of)
                made = int(chance.binomial(int(good), new)) if new < 1 else int(good)
                by_round[n, account.rounds] += drawn @ usage
                if piloted:
                    made += int(kept_of[own[leaf]].sum())
                    by_round[n, 0] += usage[own[leaf]].sum(axis=0)
                _count(account, leaf, count, made, target=target, by_leaf=by_leaf)
                slots[n] += count
            account.rounds += 1
        kept[n], rounds[n] = account.kept, account.rounds
    return Plays(slots, kept, rounds, by_round.sum(axis=1), by_round)


def _of_leaf(weights: Floats, mask: NDArray[np.bool_] | None, count: int) -> Floats:
    """Weights for one leaf: its own trials, as far as there are enough of them, and all. What was not seen keeps its
    weight."""
    if mask is None or not count:
        return weights
    unseen = float(weights[-len(_UNSEEN) :].sum())
    mine = np.where(mask, weights, 0.0)
    mine *= (1 - unseen) / mine.sum()
    mine[-len(_UNSEEN) :] = weights[-len(_UNSEEN) :]
    trust = count / (count + _LEAF_TRUST)
    mixed = trust * mine + (1 - trust) * weights
    return mixed / mixed.sum()


def _count(account: Account, leaf: tuple[str, ...], slots: int, made: int, *, target: int, by_leaf: bool) -> None:
    count = account.leaves[leaf]
    kept = min(made, count.missing if by_leaf else max(0, target - account.kept))
    count.kept += kept
    count.slots += slots
    count.barren_rounds = 0 if kept else count.barren_rounds + 1
    account.kept += kept
