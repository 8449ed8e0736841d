"""What the tests of methods share: an ask that answers from a script and keeps what it was asked, and small recipes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

from hypothesis import settings

from distill.dataset import Failure, Row
from distill.io import digest
from distill.methods import Method, build_method
from distill.planning import Seed, Slot, Topic
from distill.prompting import PromptBook
from distill.recipe import Recipe
from distill.teachers import Answer, Finish, Request, Usage

Said = str | Answer | Exception

examples = settings(deadline=None, max_examples=40)
"""Machines that run tests are busy: a slow example is no failure."""


def answer(
    text: str, *, finish: Finish = "stop", reasoning: str | None = None, cost: str = "0.001", key: str = ""
) -> Answer:
    return Answer(text, reasoning, finish, Usage(10, 5), Decimal(cost), key, model="m")


@dataclass
class Script:
    """An ask in memory. `say` gets the request and the sample number; keys are content addresses, as in the store."""

    say: Callable[[Request, int], Said]
    delay: Callable[[int], float] | None = None
    """Turns of the loop that the n-th request waits: another order of arrival."""
    asked: list[tuple[Request, int]] = field(default_factory=list)
    paid: list[Answer] = field(default_factory=list)

    async def __call__(self, request: Request, *, sample: int = 0) -> Answer:
        self.asked.append((request, sample))
        number = len(self.asked)
        said = self.say(request, sample)
        if self.delay is not None:
            for _ in range(int(self.delay(number))):
                await asyncio.sleep(0)
        if isinstance(said, Exception):
            raise said
        if isinstance(said, str):
            said = answer(said)
        key = said.key or digest([repr(request), sample], size=8)
        found = Answer(said.text, said.reasoning, said.finish, said.usage, said.cost, key, request.teacher, said.model)
        self.paid.append(found)
        return found

    @property
    def spent(self) -> Decimal:
        return sum((one.cost for one in self.paid), Decimal(0))

    @property
    def users(self) -> list[str]:
        return [request.messages[-1].content for request, _ in self.asked]


def in_turn(*said: Said) -> Script:
    """One answer after the other, whatever is asked."""
    left = list(said)
    return Script(lambda request, sample: left.pop(0))


def slot(index: int = 3, **fields: Any) -> Slot:
    return Slot(f"probe-{index:06d}", index, Topic(("cards", "lost")), **fields)


def seeded(**data: Any) -> Slot:
    return slot(seeds=(Seed("s1", "How many?", None, data),))


def method(folder: Path, section: dict[str, Any], prompts: Mapping[str, str], **teachers: Any) -> Method:
    """The method of a small recipe in `folder`; prompts are written there as files."""
    named = teachers or {"main": {"sampling": {"temperature": 0.8, "max_tokens": 64}}}
    recipe = Recipe.model_validate(
        {
            "name": "probe",
            "teachers": {name: {"provider": "openai", "model": "m", **more} for name, more in named.items()},
            "plan": {"taxonomy": "t", "target": 1},
            "method": section,
        }
    ).at(folder)
    for name, text in prompts.items():
        file = folder / "prompts" / f"{name}.j2"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, "utf-8")
    return build_method(recipe, PromptBook(folder))


def rows(outcomes: Sequence[Row | Failure]) -> list[Row]:
    return [one for one in outcomes if isinstance(one, Row)]


def failures(outcomes: Sequence[Row | Failure]) -> list[Failure]:
    return [one for one in outcomes if isinstance(one, Failure)]


def billed(outcomes: Sequence[Row | Failure]) -> Decimal:
    return sum((one.cost for one in outcomes), Decimal(0))
