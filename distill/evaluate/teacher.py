"""A model behind the gateway answers the holdout: a teacher with its own instructions, or an endpoint with the item's.

The caller passes `ask` (the gateway's, or a method's): limits, retries, money and the answer store are its business.
An item whose request fails counts as wrong, and says why.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, cast

from distill.errors import AnswerError, TeacherError, first_of
from distill.evaluate.generation import Generated, Prediction, latency_of
from distill.evaluate.holdout import Item
from distill.io import digest
from distill.methods import Ask
from distill.teachers import Message, Request, SamplingParams

__all__ = ["TeacherSystem"]


@dataclass
class TeacherSystem:
    """A teacher of the recipe, asked as it would be in production: greedy, one question at a time."""

    teacher: str
    """The recipe's name for it."""
    ask: Ask
    model: str = ""
    system: str | None = None
    """Its system turn, in place of the student's. None: the item's own."""
    max_tokens: int = 128
    schema: Mapping[str, Any] | None = None
    window: int = 16
    """Requests in flight."""
    name: str = "teacher"
    priced: bool = False
    """Whether an answer's cost is money. What runs on this machine costs its time."""
    here: bool = False
    """Whether it runs on this machine, so that its seconds are this machine's."""
    facts: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """What else says which model this is (an endpoint's address, and what it says of its model)."""
    sample: int = 0
    """Of every question. A model that has changed behind the same name has to be asked under another number."""
    temperature: float = 0.0
    """Above 0: answers are drawn, and `sample` is the number of the draw."""
    clock: Callable[[], float] = field(default=time.perf_counter, repr=False)

    def about(self) -> dict[str, Any]:
        """What is scored."""
        return {
            "teacher": self.teacher,
            "model": self.model,
            "system": digest(self.system),
            "schema": digest(dict(self.schema)) if self.schema is not None else None,
            "max_tokens": self.max_tokens,
            "decoding": f"temperature {self.temperature:g}" + (f", draw {self.sample}" if self.temperature else ""),
            **self.facts,
        }

    def drawing(self, number: int, temperature: float) -> TeacherSystem:
        """The same system, as it makes draw `number` at a temperature."""
        return replace(self, temperature=temperature, sample=self.sample + number)

    async def answer(self, items: Sequence[Item], progress: Callable[[int], None]) -> Generated:
        """Ask every item, at most `window` at a time."""
        found: list[Prediction | None] = [None] * len(items)
        times: list[float] = []
        queue = iter(range(len(items)))
        done = recalled = 0

        async def worker() -> None:
            nonlocal done, recalled
            for position in queue:
                started = self.clock()
                prediction, stored = await self._one(items[position])
                recalled += stored
                if not stored and prediction.finish in ("stop", "length"):
                    times.append(self.clock() - started)
                found[position] = prediction
                done += 1
                progress(done)

        began = self.clock()
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(min(self.window, len(items))):
                    group.create_task(worker())
        except BaseExceptionGroup as errors:  # a budget, or an interruption: one error says it
            raise first_of(errors) from None
        latency = latency_of(times, f"up to {self.window} requests in flight, queue and retries included")
        seconds = self.clock() - began
        return Generated(cast("list[Prediction]", found), seconds, latency, timed=recalled == 0)

    async def _one(self, item: Item) -> tuple[Prediction, bool]:
        """The prediction, and whether it was stored."""
        turns = list(item.messages)
        if self.system is not None:
            turns = [{"role": "system", "content": self.system}, *(t for t in turns if t["role"] != "system")]
        request = Request(
            teacher=self.teacher,
            messages=tuple(Message(cast("Any", turn["role"]), turn["content"]) for turn in turns),
            params=SamplingParams(max_tokens=self.max_tokens, temperature=self.temperature),
            schema=self.schema,
        )
        # An ask that the store answers never gives up the loop.
        gave_way = asyncio.Event()
        asyncio.get_running_loop().call_soon(gave_way.set)
        try:
            answer = await self.ask(request, sample=self.sample)
        except (TeacherError, AnswerError) as error:
            return Prediction("", 0, error.failure.value), not gave_way.is_set()
        cost = float(answer.cost) if self.priced else None
        usage = answer.usage
        prediction = Prediction(
            answer.text, usage.output, answer.finish, usage.input, cost, reasoning=answer.reasoning or ""
        )
        return prediction, answer.reused or not gave_way.is_set()
