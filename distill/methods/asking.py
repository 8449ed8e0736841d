"""Asking: a voice is a teacher, or a group of them, with its sampling resolved once; a draw is one answer, fit for use
or lost.

What goes wrong with one request is a value here (`Lost`), never an exception, so that one failed sample does not
take its neighbours along. `Halted` and `RunError` are the run's business and always pass through, after requests
already under way have come home: their answers are paid.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar

from distill.dataset import Failure
from distill.errors import AnswerError, FailureClass, Halted, RunError, TeacherError
from distill.methods.base import Ask
from distill.methods.bill import Bill
from distill.methods.structured import Unstructured
from distill.planning import Slot
from distill.recipe import MethodConfig, Recipe
from distill.teachers import Answer, Message, Request, SamplingParams

__all__ = ["Lost", "Read", "Spoken", "Voice", "draw", "draw_read", "together", "turns"]

T = TypeVar("T")

_CORRECTION = (
    "That is not what was asked for: {problem}\n"
    "Give the whole answer once more, corrected, in the form that was asked for and with nothing else around it."
)


@dataclass(frozen=True, slots=True)
class Voice:
    """A teacher as one method uses it."""

    teacher: str
    params: SamplingParams
    raised: SamplingParams | None = None
    """What a cut answer is asked for again with; None leaves it cut."""
    members: Mapping[str, Voice] | None = None
    """The voices of a group's teachers; `params` are then those of the first."""

    @classmethod
    def of(cls, recipe: Recipe, teacher: str, over: MethodConfig | None = None) -> Voice:
        """The teacher's own sampling, under the overrides of a method's section where that is given."""
        names = recipe.members(teacher)
        if names != (teacher,):
            members = {name: cls.of(recipe, name, over) for name in names}
            first = members[names[0]]
            return cls(teacher, first.params, first.raised, members)
        own = recipe.teachers[teacher].sampling
        params = SamplingParams(
            max_tokens=over.max_tokens if over and over.max_tokens is not None else own.max_tokens,
            temperature=over.temperature if over and over.temperature is not None else own.temperature,
            top_p=own.top_p,
            stop=own.stop,
            seed=own.seed,
            extra=own.extra,
            top_logprobs=own.top_logprobs,
        )
        raised = replace(params, max_tokens=params.max_tokens * 2) if over and over.raise_max_tokens else None
        return cls(teacher, params, raised)

    def at(self, temperature: float) -> Voice:
        """The same voice at another temperature."""
        raised = None if self.raised is None else replace(self.raised, temperature=temperature)
        members = None
        if self.members is not None:
            members = {name: voice.at(temperature) for name, voice in self.members.items()}
        return Voice(self.teacher, replace(self.params, temperature=temperature), raised, members)

    def request(self, messages: tuple[Message, ...], schema: Mapping[str, Any] | None) -> Request:
        """A question in this voice."""
        each = None if self.members is None else {name: voice.params for name, voice in self.members.items()}
        return Request(self.teacher, messages, self.params, schema, each)

    def louder(self) -> Voice | None:
        """The voice that asks for a cut answer again; None leaves it cut."""
        if self.raised is None:
            return None
        members = None
        if self.members is not None:
            members = {name: replace(one, params=one.raised or one.params) for name, one in self.members.items()}
        return Voice(self.teacher, self.raised, None, members)

    def of_member(self, teacher: str) -> Voice:
        """The voice of the one that answered."""
        return self if self.members is None else self.members.get(teacher, self)


@dataclass(frozen=True, slots=True)
class Spoken:
    """An answer with text in it, that ended by itself."""

    answer: Answer
    paid: tuple[Answer, ...]
    """All answers of this draw, in the order of the asking; `answer` is the last."""


@dataclass(frozen=True, slots=True)
class Read(Generic[T]):
    """An answer that was understood."""

    value: T
    answer: Answer
    paid: tuple[Answer, ...]

    @property
    def corrected(self) -> bool:
        """Whether the teacher had to be asked again."""
        return any(answer.finish == "stop" for answer in self.paid[:-1])


@dataclass(frozen=True, slots=True)
class Lost:
    """A draw that holds nothing usable, and what was paid for it."""

    failure: FailureClass
    message: str
    raw: str = ""
    paid: tuple[Answer, ...] = ()
    keys: tuple[str, ...] = ()
    """Stored answers beside `paid`."""
    teacher: str = ""

    def fate(self, slot: Slot, number: int, shared: Bill | None = None) -> Failure:
        """The failure of unit `number` of the slot; `shared` is its part of what it has in common with others."""
        bill = Bill.of(self.paid) if shared is None else shared + Bill.of(self.paid)
        keys = tuple(dict.fromkeys((*bill.keys, *self.keys)))
        return Failure(f"{slot.id}-{number}", slot, self.failure, self.message, self.raw, keys, bill.cost, self.teacher)


async def draw(
    ask: Ask,
    voice: Voice,
    messages: tuple[Message, ...],
    *,
    sample: int = 0,
    schema: Mapping[str, Any] | None = None,
) -> Spoken | Lost:
    """Ask once; once more with twice the tokens where the answer was cut and the voice may raise them."""
    spoke = voice
    paid: tuple[Answer, ...] = ()
    try:
        answer = await ask(voice.request(messages, schema), sample=sample)
        paid = (answer,)
        if answer.finish == "length" and (louder := voice.louder()) is not None:
            spoke = louder
            answer = await ask(louder.request(messages, schema), sample=sample)
            paid = (*paid, answer)
    except AnswerError as error:
        return Lost(error.failure, error.message, error.raw, paid, error.keys, error.teacher or voice.teacher)
    except TeacherError as error:
        said = paid[-1].text if paid else ""
        return Lost(error.failure, error.message, said, paid, (), error.teacher or voice.teacher)
    if answer.finish == "stop" and answer.text and not answer.text.isspace():
        return Spoken(answer, paid)
    failure, message = _UNUSABLE[answer.finish]
    if failure is FailureClass.LENGTH:
        message = f"{message} ({spoke.of_member(answer.teacher).params.max_tokens})"
    return Lost(failure, message, answer.text or answer.reasoning or "", paid, (), answer.teacher or voice.teacher)


_UNUSABLE = {
    "stop": (FailureClass.EMPTY, "the answer holds no text"),
    "empty": (FailureClass.EMPTY, "the answer holds no text"),
    "length": (FailureClass.LENGTH, "the answer was cut at max_tokens"),
    "refusal": (FailureClass.REFUSED, "the teacher declined to answer"),
    "filtered": (FailureClass.FILTERED, "the provider's content filter held the answer back"),
}


async def draw_read(
    ask: Ask,
    voice: Voice,
    messages: tuple[Message, ...],
    read: Callable[[str], T],
    *,
    sample: int = 0,
    schema: Mapping[str, Any] | None = None,
) -> Read[T] | Lost:
    """Ask for something that `read` understands. Where it does not (`Unstructured`), the teacher sees its answer and
    what is wrong with it, and is asked once more."""
    paid: tuple[Answer, ...] = ()
    raw = problem = ""
    for turn in messages, None:
        if turn is None:
            turn = (*messages, Message("assistant", raw), Message("user", _CORRECTION.format(problem=problem)))
        spoken = await draw(ask, voice, turn, sample=sample, schema=schema)
        paid = (*paid, *spoken.paid)
        if isinstance(spoken, Lost):
            return replace(spoken, raw=spoken.raw or raw, paid=paid)
        try:
            return Read(read(spoken.answer.text), spoken.answer, paid)
        except Unstructured as error:
            raw, problem = spoken.answer.text, str(error)
    return Lost(FailureClass.UNPARSED, problem, raw, paid, (), paid[-1].teacher or voice.teacher)


def turns(user: str, *systems: str | None) -> tuple[Message, ...]:
    """The messages of a request: the system texts that are there as one turn, then the user's."""
    there = [system for system in systems if system]
    if not there:
        return (Message("user", user),)
    return (Message("system", "\n\n".join(there)), Message("user", user))


async def together(work: Sequence[Coroutine[Any, Any, T]]) -> list[T]:
    """Run everything at once; results in the order of `work`, whatever order they come in.

    A halt in one waits for the others, because their requests may be under way, and is raised then.
    """
    if len(work) == 1:
        return [await work[0]]
    halts: list[Halted | RunError] = []

    async def guarded(one: Coroutine[Any, Any, T]) -> T | None:
        try:
            return await one
        except (Halted, RunError) as halt:
            halts.append(halt)
            return None

    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(guarded(one)) for one in work]
    except BaseExceptionGroup as errors:
        raise errors.exceptions[0] from None
    if halts:
        raise halts[0]
    return [task.result() for task in tasks]  # pyright: ignore[reportReturnType]  # None stands only beside a halt
