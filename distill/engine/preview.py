"""A few finished slots, laid open: rendered prompts, raw answers, parsed rows, fates.

Previewing asks for real, through the same gateway and store: the run that follows gets these answers for free.
"""

from __future__ import annotations

import asyncio
import itertools
from dataclasses import dataclass

from distill.dataset import Failure, Fate, Row, rows_to_table
from distill.engine.prepare import Prepared
from distill.engine.session import SlotAsk, teachers_used
from distill.errors import AnswerError, TeacherError
from distill.gateway import Gateway
from distill.planning import Slot
from distill.teachers import Answer, Request, make_teacher

__all__ = ["Exchange", "Specimen", "preview"]


@dataclass(frozen=True, slots=True)
class Exchange:
    """One question and what came back: an answer, or the error in words."""

    request: Request
    answer: Answer | None
    error: str


@dataclass(frozen=True, slots=True)
class Specimen:
    """One slot from plan to fate. `fates` goes with `rows`: None where a row is kept."""

    slot: Slot
    exchanges: list[Exchange]
    rows: list[Row]
    fates: list[Fate | None]
    failures: list[Failure]


class _Recorder:
    """An ask that remembers."""

    def __init__(self, ask: SlotAsk) -> None:
        self._ask = ask
        self.exchanges: list[Exchange] = []

    async def __call__(self, request: Request, *, sample: int = 0) -> Answer:
        try:
            answer = await self._ask(request, sample=sample)
        except TeacherError as error:
            self.exchanges.append(Exchange(request, None, str(error)))
            raise
        self.exchanges.append(Exchange(request, answer, ""))
        return answer


async def preview(prepared: Prepared, count: int) -> list[Specimen]:
    """The first `count` slots of the plan, finished and judged.

    Raises:
        Halted, RunError: the teachers cannot be asked.
    """
    recipe = prepared.recipe
    slots = list(itertools.islice(prepared.planner().slots(), count))
    method, chain = prepared.method(), prepared.chain()
    teachers = {name: make_teacher(name, recipe.teachers[name]) for name in teachers_used(recipe)}
    store = prepared.open_store()
    try:
        async with Gateway(
            teachers,
            recipe.teachers,
            store,
            run=f"preview {prepared.inputs[:16]}",
            budget=recipe.budget,
            groups=recipe.teacher_groups,
            seed=recipe.seed,
        ) as gateway:

            async def finish(slot: Slot) -> tuple[_Recorder, list[Row | Failure]]:
                ask = SlotAsk(gateway, slot)
                recorder = _Recorder(ask)
                try:
                    return recorder, await method(slot, recorder)
                except (AnswerError, TeacherError) as error:
                    return recorder, [ask.failure(error)]

            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(finish(slot)) for slot in slots]
    finally:
        store.close()
    specimens: list[Specimen] = []
    for slot, task in zip(slots, tasks, strict=True):
        recorder, items = task.result()
        rows = [item for item in items if isinstance(item, Row)]
        verdicts = chain.judge(rows_to_table(rows)) if rows else None
        fates = [verdicts.fate(position) for position in range(len(rows))] if verdicts is not None else []
        failures = [item for item in items if isinstance(item, Failure)]
        specimens.append(Specimen(slot, recorder.exchanges, rows, fates, failures))
    return specimens
