"""Where judging metrics ask: rubric files put to a teacher of the recipe, through the gateway."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import TypeVar

from distill.errors import InputError
from distill.methods import Ask, Prompts
from distill.methods.asking import Lost, Read, Voice
from distill.methods.judging import Judge
from distill.planning import Slot, Topic
from distill.teachers import SamplingParams

__all__ = ["PAIRWISE", "RUBRIC", "Desk", "teacher_of"]

RUBRIC = "evaluate/rubric.j2"
PAIRWISE = "evaluate/pairwise.j2"
_TOP = 5

T = TypeVar("T")


@dataclass
class Desk:
    """Judges of one evaluation."""

    ask: Ask
    """The gateway's."""
    prompts: Prompts
    teachers: Mapping[str, SamplingParams]
    """Teachers that may judge, with their sampling."""
    teacher: str | None = None
    """Who judges where a metric names nobody; left out: the only teacher there is."""
    cost: dict[str, float] = field(default_factory=dict[str, float])
    """USD by judge, answers from the store included at what they cost when they were made."""

    def check(self, rubric: str | None, name: str, *, pairwise: bool) -> None:
        """Look at teacher and rubric before anything is asked.

        Raises:
            InputError: one of them is missing or wrong.
        """
        teacher_of(name, self.teacher, self.teachers)
        given = {"question": "(the question)", "known": "(the reference)"}
        answers = {"a": "(the first answer)", "b": "(the second answer)"} if pairwise else {"answer": "(the answer)"}
        prompt = self.prompts.get(rubric or (PAIRWISE if pairwise else RUBRIC))
        prompt.render(_slot(), **given, **answers)

    async def score(self, rubric: str | None, question: str, answer: str, known: str, name: str) -> float | None:
        """From 1 to 5; None where the judge gave none that could be read."""
        who, judge = self._judge(rubric or RUBRIC, name)
        return self._read(who, await judge.score(self.ask, _slot(), question, answer, top=_TOP, known=known))

    async def winner(self, rubric: str | None, question: str, a: str, b: str, known: str, name: str) -> str | None:
        """`A`, `B` or `tie`; None where the judge did not say."""
        who, judge = self._judge(rubric or PAIRWISE, name)
        return self._read(who, await judge.winner(self.ask, _slot(), question, a, b, known=known))

    def _judge(self, rubric: str, name: str) -> tuple[str, Judge]:
        who = teacher_of(name, self.teacher, self.teachers)
        return who, Judge(self.prompts.get(rubric), Voice(who, replace(self.teachers[who], temperature=0.0)))

    def _read(self, who: str, said: Read[T] | Lost) -> T | None:
        self.cost[who] = self.cost.get(who, 0.0) + float(sum(answer.cost for answer in said.paid))
        return None if isinstance(said, Lost) else said.value


def teacher_of(name: str, default: str | None, teachers: Iterable[str]) -> str:
    """The teacher that `name` means, or `default`, or the only one there is.

    Raises:
        InputError: there is none, or several and none is named.
    """
    there = list(teachers)
    chosen = name or default or (there[0] if len(there) == 1 else None)
    if chosen is None or chosen not in there:
        what = f"no such teacher: {chosen}" if chosen else "which teacher judges?"
        known = ", ".join(there) or "none"
        raise InputError(what, field="judge", hint=f"write `judge:teacher=NAME`; there are: {known}")
    return chosen


def _slot() -> Slot:
    """A rubric speaks of no slot, so an empty one stands in."""
    return Slot("eval-0", 0, Topic(("eval",)))
