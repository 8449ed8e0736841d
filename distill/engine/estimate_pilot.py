"""The pilot of an estimate: the first slots of the run's own plan, asked for real, with everything they used.

The answers lie in the store, so the run that follows has them for nothing. Batches are not waited for: a pilot asks
online, whatever the recipe's `mode`.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from distill.dataset import Failure, Row, rows_to_table
from distill.engine.accounting import Account
from distill.engine.prepare import Prepared
from distill.engine.rounds import plan_round
from distill.engine.session import SlotAsk, teachers_used
from distill.errors import AnswerError, TeacherError, first_of
from distill.gateway import Gateway, TeacherStats
from distill.planning import Slot
from distill.recipe import PreferenceConfig, Recipe
from distill.teachers import Answer, Request, Usage, make_teacher

__all__ = ["Pilot", "Trial", "Used", "run_pilot"]


@dataclass(frozen=True, slots=True)
class Used:
    """One answer that a slot used. `seconds` is None where it came from the store."""

    teacher: str
    step: str
    usage: Usage
    seconds: float | None
    key: str


@dataclass(slots=True)
class Trial:
    """One slot of the pilot and what became of it."""

    slot: Slot
    used: list[Used] = field(default_factory=list[Used])
    rows: int = 0
    kept: int = 0
    repeated: int = 0
    """Rows that repeat another row of the pilot."""
    lost: Counter[str] = field(default_factory=Counter[str])
    """Rows by the filter that dropped them, and failures as `failed: class`."""

    @property
    def leaf(self) -> tuple[str, ...]:
        return self.slot.leaf


@dataclass(frozen=True, slots=True)
class Pilot:
    """All trials, and what they show together."""

    trials: list[Trial]
    survivors: int
    """Kept rows that another row repeated."""
    judged: Counter[str]
    """Rows that reached each filter."""
    stats: dict[str, TeacherStats]
    cpu_per_request: float
    """Seconds of this process for one answer."""


class _Recorder:
    """An ask that notes what it used. Requests of a slot that wait for earlier ones belong to a later step."""

    def __init__(self, recipe: Recipe, ask: SlotAsk, trial: Trial, clock: Callable[[], float]) -> None:
        self._recipe, self._ask, self._trial, self._clock = recipe, ask, trial, clock
        self._wave = 0
        self._pending = 0

    async def __call__(self, request: Request, *, sample: int = 0) -> Answer:
        if not self._pending:
            self._wave += 1
        wave, began = self._wave, self._clock()
        self._pending += 1
        try:
            answer = await self._ask(request, sample=sample)
        finally:
            self._pending -= 1
        seconds = self._clock() - began
        step = _step(self._recipe, request.teacher, wave)
        self._trial.used.append(Used(answer.teacher or request.teacher, step, answer.usage, seconds, answer.key))
        return answer


def _step(recipe: Recipe, teacher: str, wave: int) -> str:
    """What a request is for, by the method and the order in which it came."""
    method = recipe.method
    first = getattr(method, "input", None) is not None
    if first and wave == 1:
        return "input"
    if not isinstance(method, PreferenceConfig):
        return "answer"
    if teacher == method.judge and (teacher not in method.candidates or wave > 1 + first):
        return "judge"
    return "candidate"


async def run_pilot(
    prepared: Prepared,
    count: int,
    *,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> Pilot:
    """The first `count` slots of the first round, finished and judged.

    Raises:
        Halted, RunError: the teachers cannot be asked.
    """
    recipe = prepared.recipe
    planner, method, chain = prepared.planner(), prepared.method(), prepared.chain()
    account = Account.open(planner.quota(recipe.plan.target))
    wanted = plan_round(account, rows_per_slot=method.rows_per_slot, expected_yield=recipe.plan.expected_yield)
    trials = [Trial(slot) for slot in itertools.islice(planner.take(wanted), count)]
    teachers = {
        name: make_teacher(name, recipe.teachers[name], clock=clock, sleep=sleep) for name in teachers_used(recipe)
    }
    store = prepared.open_store()
    worked = time.process_time()
    try:
        async with Gateway(
            teachers,
            recipe.teachers,
            store,
            run=f"estimate {prepared.inputs[:16]}",
            budget=recipe.budget,
            clock=clock,
            sleep=sleep,
            groups=recipe.teacher_groups,
            seed=recipe.seed,
        ) as gateway:

            async def finish(trial: Trial) -> list[Row | Failure]:
                ask = SlotAsk(gateway, trial.slot)
                try:
                    return await method(trial.slot, _Recorder(recipe, ask, trial, clock))
                except (AnswerError, TeacherError) as error:
                    return [ask.failure(error)]

            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(finish(trial)) for trial in trials]
            stats = dict(gateway.stats)
    except BaseExceptionGroup as errors:
        raise first_of(errors) from None
    finally:
        store.close()
    worked = time.process_time() - worked
    survivors: set[str] = set()
    judged: Counter[str] = Counter()
    ids: set[str] = set()
    names = [step.name for step in chain.steps]
    for trial, task in zip(trials, tasks, strict=True):
        items = task.result()
        rows = [item for item in items if isinstance(item, Row)]
        trial.rows = len(items)
        trial.lost.update(f"failed: {item.failure}" for item in items if isinstance(item, Failure))
        ids.update(row.id for row in rows)
        verdicts = chain.judge(rows_to_table(rows)) if rows else None
        for position in range(len(rows)):
            dropped = None if verdicts is None or verdicts.keep[position] else verdicts.filter[position]
            judged.update(names if dropped is None else names[: names.index(dropped) + 1])
            if dropped is None:
                trial.kept += 1
                continue
            trial.lost[dropped] += 1
            if verdicts is not None and verdicts.matched_id[position] in ids:
                trial.repeated += 1
                survivors.add(verdicts.matched_id[position])
    asked = sum(len(trial.used) for trial in trials)
    return Pilot(trials, len(survivors), judged, stats, worked / max(1, asked))
