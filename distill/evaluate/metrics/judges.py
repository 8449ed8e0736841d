"""`judge` and `judge_pairwise`: a teacher looks at the answers.

`judge` asks for a score from 1 to 5 by a rubric; the value is the mean. `judge_pairwise` asks which of two systems'
answers is better, in both orders (judges prefer a place: Zheng et al. 2023, arXiv:2306.05685): two orders that agree
are a win or a loss, anything else is a tie, and the value is the share of wins with ties as halves. An answer that
the judge could not be read on counts nowhere, and how many there were is said.

Rubrics are prompt files with the variables `question`, `answer` (or `a` and `b`) and `known`, the holdout's own
answer. Requests go through the gateway: stored, budgeted, asked at temperature 0.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, TypeVar

import numpy as np

from distill.errors import InputError, RunError, first_of
from distill.evaluate.holdout import Item
from distill.evaluate.metrics.base import AskedMetric, Counted, JudgeDesk, Reference, shares

__all__ = ["Judge", "JudgePairwise", "windowed"]

T = TypeVar("T")

_WINDOW = 32  # items judged at once; the gateway has limits of its own


@dataclass(frozen=True)
class Judge(AskedMetric):
    """The mean score of a judge."""

    RANGE: ClassVar[tuple[float, float]] = (1.0, 5.0)

    rubric: str | None = None

    def check_desk(self, desk: JudgeDesk) -> None:
        desk.check(self.rubric, self.teacher or "", pairwise=False)

    async def count_asking(
        self, items: Sequence[Item], predictions: Sequence[str], reference: Reference, desk: JudgeDesk
    ) -> Counted:
        found = await windowed(
            [
                partial(desk.score, self.rubric, item.question, text, item.answer, self.teacher or "")
                for item, text in zip(items, predictions, strict=True)
            ]
        )
        scores = [5.0 if score is None else score for score in found]
        given = _given(found, self.name)
        spread = {str(value): sum(score == value for score in found) for value in range(1, 6)}
        unjudged = sum(score is None for score in found)
        return shares(scores, given, details={"scores": spread, "unjudged": unjudged})

    def definition(self) -> str:
        return "mean score of a judge from 1 to 5" + (f", by {self.rubric}" if self.rubric else "")


@dataclass(frozen=True)
class JudgePairwise(AskedMetric):
    """How often a judge prefers a system to another one."""

    rubric: str | None = None
    against: str | None = None
    """The other system; left out: the first that is scored."""

    def check_desk(self, desk: JudgeDesk) -> None:
        desk.check(self.rubric, self.teacher or "", pairwise=True)

    async def count_asking(
        self, items: Sequence[Item], predictions: Sequence[str], reference: Reference, desk: JudgeDesk
    ) -> Counted:
        other = self.against or next(iter(reference.others), reference.system)
        if other == reference.system:
            return shares([0.5] * len(items), details={"against": other})
        if other not in reference.others:
            raise InputError(
                f"metric {self.name}: {other!r} is not scored before {reference.system!r}",
                hint=f"scored so far: {', '.join(reference.others) or 'none'}",
            )
        theirs = reference.others[other]
        found = await windowed(
            [
                partial(self._one, desk, item, ours, text)
                for item, ours, text in zip(items, predictions, theirs, strict=True)
            ]
        )
        given = _given(found, self.name)
        details = {
            "against": other,
            "wins": sum(verdict == 1.0 for verdict in found),
            "ties": sum(verdict == 0.5 for verdict in found),
            "losses": sum(verdict == 0.0 for verdict in found),
            "unjudged": sum(verdict is None for verdict in found),
        }
        return shares([0.5 if verdict is None else verdict for verdict in found], given, details=details)

    def definition(self) -> str:
        return f"share of items on which a judge prefers it to {self.against or 'the first system'}; a tie is a half"

    async def _one(self, desk: JudgeDesk, item: Item, ours: str, theirs: str) -> float | None:
        if ours.strip() == theirs.strip():
            return 0.5
        ask, who = desk.winner, self.teacher or ""
        first = await ask(self.rubric, item.question, ours, theirs, item.answer, who)
        second = await ask(self.rubric, item.question, theirs, ours, item.answer, who)
        if first is None or second is None:
            return None
        return {("A", "B"): 1.0, ("B", "A"): 0.0}.get((first, second), 0.5)


def _given(found: Sequence[Any], name: str) -> Any:
    """Weights that leave out what was not judged.

    Raises:
        RunError: nothing was.
    """
    if all(value is None for value in found):
        raise RunError(f"metric {name}: the judge could not be read on any item")
    return np.array([float(value is not None) for value in found])


async def windowed(work: Sequence[Callable[[], Awaitable[T]]]) -> list[T]:
    """Results in order, at most `_WINDOW` under way. What stops one (a budget) stops all, and is raised."""
    room = asyncio.Semaphore(_WINDOW)

    async def one(start: Callable[[], Awaitable[T]]) -> T:
        async with room:
            return await start()

    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one(start)) for start in work]
    except BaseExceptionGroup as errors:
        raise first_of(errors) from None
    return [task.result() for task in tasks]
