"""`distill estimate`: what a run will cost, how long it takes and what it yields, before it is paid.

A pilot (`estimate_pilot`) is asked for real; the rest is played through many times (`estimate_model`). Every figure
comes with an interval that holds in at least 80 of 100 cases, as far as the slots to come are like the pilot's.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass, replace
from decimal import Decimal
from typing import Any

import numpy as np

from distill.engine.estimate_books import Books, Spending
from distill.engine.estimate_model import Floats, Interval, Plays, interval, play
from distill.engine.estimate_pilot import Pilot, run_pilot
from distill.engine.prepare import Prepared
from distill.engine.session import teachers_used
from distill.errors import InputError
from distill.recipe import Recipe

__all__ = ["Alternative", "Estimate", "Share", "estimate"]

_PLAYS = 300
_USABLE = 0.985  # of a rate limit, as the gateway keeps to it
_DAY_S = 86_400.0


@dataclass(frozen=True, slots=True)
class Share:
    """A share that the pilot showed, and what it may really be."""

    seen: int
    of: int
    share: Interval


@dataclass(frozen=True, slots=True)
class Alternative:
    """The same run another way."""

    name: str
    cost_usd: Interval | None
    per_accepted_usd: Interval | None
    accepted: Interval
    rounds: Interval
    seconds: Interval | None
    """None where nothing was timed."""
    note: str


@dataclass(frozen=True, slots=True)
class Estimate:
    """Whole runs, the pilot included; `pilot_usd` of it is paid already."""

    target: int
    pilot_slots: int
    pilot_kept: int
    pilot_usd: Decimal | None
    cost_usd: Interval | None
    per_accepted_usd: Interval | None
    accepted: Interval
    complete: float
    """Share of the plays that reached the target."""
    slots: Interval
    rounds: Interval
    seconds: Interval | None
    """None where every answer of the pilot came from the store, so that nothing was timed."""
    bound_by: str
    spending: list[Spending]
    leaves: dict[str, Share]
    losses: dict[str, Share]
    """By filter (of the rows that reach it), and by failure (of all rows)."""
    alternatives: list[Alternative]
    simulated: bool

    def as_json(self) -> dict[str, Any]:
        value = asdict(self)
        value["pilot_usd"] = None if self.pilot_usd is None else float(self.pilot_usd)
        return {"interval": 0.8, **value}


async def estimate(
    prepared: Prepared,
    count: int,
    *,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> Estimate:
    """Run the pilot and play the run through.

    Raises:
        InputError: a price is needed and not known.
        Halted, RunError: the teachers cannot be asked.
    """
    pilot = await run_pilot(prepared, count, clock=clock, sleep=sleep)
    if not any(trial.used for trial in pilot.trials):
        raise InputError(
            "no slot of the pilot brought an answer: there is nothing to estimate from",
            hint="`distill preview` shows what the teachers say.",
        )
    recipe = prepared.recipe
    books = Books(recipe, pilot)
    plays = _plays(prepared, pilot, books.used)
    cost = books.cost_of(plays)
    seconds, bound_by = _time(recipe, pilot, books, plays)
    others = _alternatives(pilot, books, plays)
    fewer = await _fewer_samples(prepared, count, clock=clock, sleep=sleep)
    return Estimate(
        target=recipe.plan.target,
        pilot_slots=len(pilot.trials),
        pilot_kept=sum(trial.kept for trial in pilot.trials),
        pilot_usd=books.paid,
        cost_usd=None if cost is None else interval(cost),
        per_accepted_usd=None if cost is None else interval(cost / np.maximum(plays.kept, 1)),
        accepted=interval(plays.kept),
        complete=float((plays.kept >= recipe.plan.target).mean()),
        slots=interval(plays.slots),
        rounds=interval(plays.rounds),
        seconds=seconds,
        bound_by=bound_by,
        spending=books.spending(plays),
        leaves=_leaves(pilot),
        losses=_losses(pilot),
        alternatives=others + fewer,
        simulated=any(recipe.teachers[name].provider == "simulated" for name in teachers_used(recipe)),
    )


def _plays(prepared: Prepared, pilot: Pilot, used: Floats) -> Plays:
    recipe = prepared.recipe
    kept = sum(trial.kept for trial in pilot.trials)
    return play(
        pilot.trials,
        used,
        prepared.planner().quota(recipe.plan.target),
        rows_per_slot=prepared.method().rows_per_slot,
        expected_yield=recipe.plan.expected_yield,
        target=recipe.plan.target,
        max_rounds=recipe.plan.max_rounds,
        by_leaf=recipe.plan.balance == "leaf",
        new_share=(kept - pilot.survivors, pilot.survivors),
        plays=_PLAYS,
        seed=recipe.seed,
    )


def _time(recipe: Recipe, pilot: Pilot, books: Books, plays: Plays) -> tuple[Interval | None, str]:
    """How long it takes and what decides that: in every round the narrowest of all limits, and once the time that a
    slot's own answers take one after the other; besides, the days that quotas by the day leave to wait."""
    if not books.timed:
        return None, "not timed: the pilot's answers came from the store"
    needs: dict[str, Floats] = {}
    days: dict[str, Floats] = {}
    steps = len({step for _, step in books.groups})
    latest = np.zeros(plays.by_round.shape[:2])
    asked = np.zeros(plays.by_round.shape[:2])
    for name in books.teachers:
        config, stats = recipe.teachers[name], pilot.stats[name]
        requests = books.requests(name, plays.by_round, "requests")
        attempts = requests * max(1.0, stats.sent / max(1, stats.answered))
        given = books.requests(name, plays.by_round, "input")
        made = books.requests(name, plays.by_round, "output")
        limits = config.limits
        rates = [
            (limits.requests_per_minute, attempts, "requests_per_minute"),
            (limits.tokens_per_minute, given + made, "tokens_per_minute"),
            (limits.input_tokens_per_minute, given, "input_tokens_per_minute"),
            (limits.output_tokens_per_minute, made, "output_tokens_per_minute"),
        ]
        if config.provider == "simulated":
            rates.append((config.simulate.requests_per_minute, attempts, "requests_per_minute of the rehearsal"))
        for limit, amount, what in rates:
            if limit is not None:
                needs[f"{name}: {what}"] = amount / (limit * _USABLE / 60)
        for limit, amount, what in (
            (limits.requests_per_day, attempts, "requests_per_day"),
            (limits.tokens_per_day, given + made, "tokens_per_day"),
        ):
            if limit is not None:
                days[f"{name}: {what}"] = np.maximum(np.ceil(amount.sum(axis=1) / limit) - 1, 0)
        seconds = books.seconds(name, plays.by_round)
        needs[f"{name}: max_concurrency"] = seconds / config.max_concurrency
        latest = np.maximum(latest, seconds / np.maximum(requests, 1e-9) * (requests > 0))
        asked += requests
    needs["this machine's processor"] = asked * pilot.cpu_per_request
    names = list(needs)
    stacked = np.stack([needs[name] for name in names])
    total = (stacked.max(axis=0) + steps * latest).sum(axis=1)
    narrowest: list[int] = np.argmax(stacked.sum(axis=2), axis=0).tolist()
    binding = names[Counter(narrowest).most_common(1)[0][0]]
    batch = [name for name in books.teachers if recipe.teachers[name].mode != "online"]
    if batch:
        return interval(plays.rounds * steps * _DAY_S), f"{batch[0]}: the batch API (at most 24 hours a step)"
    if float(np.median((steps * latest).sum(axis=1) * 2)) > float(np.median(total)):
        binding = "the time that one slot's answers take, one after the other"
    if days:
        longest = max(days, key=lambda what: float(np.median(days[what])))
        if float(np.median(days[longest])) >= 1:
            binding = longest
        total = total + _DAY_S * np.max(list(days.values()), axis=0)
    return interval(total), binding


def _alternatives(pilot: Pilot, books: Books, plays: Plays) -> list[Alternative]:
    """The pilot's own answers at other prices and limits: as many tokens, as quick, as often accepted."""
    found: list[Alternative] = []
    for number, way in enumerate(books.ways):
        cost = books.way(number, plays.used)
        seconds, _ = _time(way.recipe, pilot, books, plays)
        per_row = interval(cost / np.maximum(plays.kept, 1))
        accepted, rounds = interval(plays.kept), interval(plays.rounds)
        found.append(Alternative(way.name, interval(cost), per_row, accepted, rounds, seconds, way.note))
    return found


async def _fewer_samples(
    prepared: Prepared, count: int, *, clock: Callable[[], float], sleep: Callable[[float], Awaitable[None]]
) -> list[Alternative]:
    """The pilot once more with half the samples: all of its answers are in the store."""
    recipe = prepared.recipe
    samples = getattr(recipe.method, "samples", 1)
    if samples < 2:
        return []
    half = samples // 2
    method = recipe.method.model_copy(update={"samples": half})
    other = replace(prepared, recipe=recipe.model_copy(update={"method": method}))
    pilot = await run_pilot(other, count, clock=clock, sleep=sleep)
    books = Books(other.recipe, pilot)
    plays = _plays(other, pilot, books.used)
    cost = books.cost_of(plays)
    note = f"accepted rows {interval(plays.kept).mid:,.0f} of {recipe.plan.target:,}, from the same answers"
    return [
        Alternative(
            f"samples: {half}",
            None if cost is None else interval(cost),
            None if cost is None else interval(cost / np.maximum(plays.kept, 1)),
            interval(plays.kept),
            interval(plays.rounds),
            None,
            note,
        )
    ]


def _leaves(pilot: Pilot) -> dict[str, Share]:
    """Kept rows of the rows that each leaf made."""
    made: Counter[str] = Counter()
    kept: Counter[str] = Counter()
    for trial in pilot.trials:
        leaf = "/".join(trial.leaf)
        made[leaf] += trial.rows
        kept[leaf] += trial.kept
    return {leaf: _share(kept[leaf], of) for leaf, of in sorted(made.items())}


def _losses(pilot: Pilot) -> dict[str, Share]:
    rows = sum(trial.rows for trial in pilot.trials)
    lost: Counter[str] = Counter()
    for trial in pilot.trials:
        lost.update(trial.lost)
    judged = {name: _share(lost[name], of) for name, of in pilot.judged.items()}
    return judged | {name: _share(count, rows) for name, count in sorted(lost.items()) if name not in judged}


def _share(seen: int, of: int) -> Share:
    """With Jeffreys' interval: drawn, so that no further library is needed for its quantiles."""
    draws = np.random.default_rng(0).beta(seen + 0.5, of - seen + 0.5, 4000)
    low, mid, high = np.percentile(draws, (10, 50, 90))
    return Share(seen, of, Interval(float(low), float(mid), float(high)))
