"""A teacher answers the holdout through the gateway: same questions, its own instructions.

The caller passes `ask` (the gateway's, or a method's): limits, retries, money and the answer store are its business.
An item whose request fails counts as wrong, and says why.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from distill.errors import AnswerError, TeacherError
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
    clock: Callable[[], float] = field(default=time.perf_counter, repr=False)

    def about(self) -> dict[str, Any]:
        """What is scored."""
        return {
            "teacher": self.teacher,
            "model": self.model,
            "system": digest(self.system),
            "schema": digest(dict(self.schema)) if self.schema is not None else None,
            "max_tokens": self.max_tokens,
            "decoding": "temperature 0",
        }

    async def answer(self, items: Sequence[Item], progress: Callable[[int], None]) -> Generated:
        """Ask every item, at most `window` at a time."""
        found: list[Prediction | None] = [None] * len(items)
        times: list[float] = []
        queue = iter(range(len(items)))
        done = 0

        async def worker() -> None:
            nonlocal done
            for position in queue:
                started = self.clock()
                prediction, reused = await self._one(items[position])
                if not reused and prediction.finish in ("stop", "length"):
                    times.append(self.clock() - started)
                found[position] = prediction
                done += 1
                progress(done)

        began = self.clock()
        async with asyncio.TaskGroup() as group:
            for _ in range(min(self.window, len(items))):
                group.create_task(worker())
        latency = latency_of(times, f"up to {self.window} requests in flight, queue and retries included")
        return Generated(cast("list[Prediction]", found), self.clock() - began, latency)

    async def _one(self, item: Item) -> tuple[Prediction, bool]:
        turns = list(item.messages)
        if self.system is not None:
            turns = [{"role": "system", "content": self.system}, *(t for t in turns if t["role"] != "system")]
        request = Request(
            teacher=self.teacher,
            messages=tuple(Message(cast("Any", turn["role"]), turn["content"]) for turn in turns),
            params=SamplingParams(max_tokens=self.max_tokens, temperature=0.0),
            schema=self.schema,
        )
        try:
            answer = await self.ask(request)
        except (TeacherError, AnswerError) as error:
            return Prediction("", 0, error.failure.value), False
        return Prediction(answer.text, answer.usage.output, answer.finish), answer.reused
