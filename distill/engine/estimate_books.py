"""The books of an estimate: what every trial of the pilot used, as columns of one table, and what that costs, in the
recipe's own way and in others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal

import numpy as np

from distill.engine.estimate_model import Floats, Interval, Plays, interval
from distill.engine.estimate_pilot import Pilot, Trial, Used
from distill.engine.estimate_ways import cost_of, tariff_in, ways_of
from distill.engine.session import teachers_used
from distill.gateway import tariff_for, usd
from distill.recipe import Recipe

__all__ = ["Books", "Spending"]

_PARTS = ("requests", "input", "output", "reasoning", "cached", "cost")


@dataclass(frozen=True, slots=True)
class Spending:
    """What one step asks of one teacher. Tokens; USD, None where the price is not known."""

    teacher: str
    model: str
    step: str
    requests: Interval
    input: Interval
    output: Interval
    reasoning: Interval
    cached: Interval
    cost_usd: Interval | None


class Books:
    """What every trial used, as columns: one group of `_PARTS` for each teacher and step, then the seconds of each
    teacher's answers, then the cost of every other way."""

    def __init__(self, recipe: Recipe, pilot: Pilot) -> None:
        self.recipe = recipe
        self.teachers = teachers_used(recipe)
        self.groups = list(dict.fromkeys((used.teacher, used.step) for t in pilot.trials for used in t.used))
        self.tariffs = {name: tariff_in(recipe.teachers[name]) for name in self.teachers}
        self.ways = ways_of(recipe, self.teachers)
        columns = len(self.groups) * len(_PARTS) + len(self.teachers) + len(self.ways)
        self.used: Floats = np.zeros((len(pilot.trials), columns))
        timed = [(used.teacher, used.seconds) for t in pilot.trials for used in t.used if used.seconds is not None]
        self.timed = bool(timed) and any(stats.sent for stats in pilot.stats.values())
        seen: set[str] = set()
        for row, trial in enumerate(pilot.trials):
            for used in trial.used:
                if used.key not in seen:  # at temperature 0 slots share an answer
                    seen.add(used.key)
                    self._note(row, used)
        known = all(tariff is not None for tariff in self.tariffs.values())
        self.paid = self._paid(pilot.trials) if known else None

    def _note(self, row: int, used: Used) -> None:
        usage, tariff = used.usage, self.tariffs[used.teacher]
        at = self.groups.index((used.teacher, used.step)) * len(_PARTS)
        parts = (1, usage.input, usage.output, usage.reasoning, usage.cached, cost_of(tariff, usage))
        self.used[row, at : at + len(_PARTS)] += parts
        first = len(self.groups) * len(_PARTS)
        self.used[row, first + self.teachers.index(used.teacher)] += used.seconds or 0.0
        for number, way in enumerate(self.ways):
            self.used[row, first + len(self.teachers) + number] += cost_of(way.tariffs[used.teacher], usage)

    def _paid(self, trials: Sequence[Trial]) -> Decimal:
        pico = sum(
            tariff.cost(used.usage)
            for used in {used.key: used for trial in trials for used in trial.used}.values()
            if (tariff := tariff_for(self.recipe.teachers[used.teacher])) is not None
        )
        return usd(pico)

    def column(self, group: int, part: str) -> int:
        return group * len(_PARTS) + _PARTS.index(part)

    def cost_of(self, plays: Plays) -> Floats | None:
        if any(tariff is None for tariff in self.tariffs.values()):
            return None
        return plays.used[:, [self.column(n, "cost") for n in range(len(self.groups))]].sum(axis=1)

    def requests(self, teacher: str, values: Floats, *parts: str) -> Floats:
        """Sums over the steps of one teacher; `values` has the columns last."""
        wanted = [self.column(n, part) for n, (name, _) in enumerate(self.groups) if name == teacher for part in parts]
        return values[..., wanted].sum(axis=-1)

    def seconds(self, teacher: str, values: Floats) -> Floats:
        return values[..., len(self.groups) * len(_PARTS) + self.teachers.index(teacher)]

    def way(self, number: int, values: Floats) -> Floats:
        return values[..., len(self.groups) * len(_PARTS) + len(self.teachers) + number]

    def spending(self, plays: Plays) -> list[Spending]:
        found: list[Spending] = []
        for number, (teacher, step) in enumerate(self.groups):
            at = {part: interval(plays.used[:, self.column(number, part)]) for part in _PARTS}
            cost = at.pop("cost")
            known = self.tariffs[teacher] is not None
            model = self.recipe.teachers[teacher].model
            found.append(Spending(teacher, model, step, **at, cost_usd=cost if known else None))
        return found
