"""Real parts for gateway tests: a teacher in process, a store in memory, and time that passes when nobody works."""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Awaitable, Callable, Mapping
from decimal import Decimal
from itertools import count
from typing import Any

import orjson

from distill.errors import AnswerError, FailureClass, TeacherError
from distill.gateway import Record, Spent, StoreStats
from distill.gateway.budget import Amount
from distill.teachers import Message, Reading, Reply, Request, SamplingParams, Usage

Behaviour = Callable[["Probe", int], Awaitable[Reply]]


def body(text: str, *, given: int = 10, made: int = 5, cached: int = 0, reasoning: int = 0) -> bytes:
    return orjson.dumps({"text": text, "usage": [given, made, cached, reasoning]})


class Probe:
    """A whole teacher in process. `behave(probe, n)` answers attempt number n (from 1)."""

    provider = "openai"

    def __init__(self, behave: Behaviour | None = None, *, model: str = "probe") -> None:
        self.model = model
        self.behave = behave or echo
        self.sent = 0
        self.in_flight = 0
        self.peak = 0
        self.times: list[float] = []
        self.wires: list[Mapping[str, Any]] = []
        self.open = False

    def wire(self, request: Request, sample: int) -> dict[str, Any]:
        return {
            "model": self.model,
            "messages": [{"role": m.role, "content": m.content} for m in request.messages],
            "max_tokens": request.params.max_tokens,
        }

    async def send(self, wire: Mapping[str, Any], *, timeout: float) -> Reply:  # noqa: ASYNC109
        self.sent += 1
        self.in_flight += 1
        self.peak = max(self.peak, self.in_flight)
        self.wires.append(wire)
        try:
            return await self.behave(self, self.sent)
        finally:
            self.in_flight -= 1

    def failure(self, reply: Reply) -> TeacherError | None:
        status = reply.status
        after = reply.headers.get("retry-after")
        retry_after = float(after) if after else None
        kinds = {
            429: FailureClass.RATE_LIMITED,
            402: FailureClass.QUOTA,
            401: FailureClass.AUTH,
            451: FailureClass.FILTERED,
        }
        if status in kinds:
            return TeacherError(kinds[status], f"status {status}", status=status, retry_after=retry_after)
        if status >= 500:
            return TeacherError(FailureClass.OVERLOADED, f"status {status}", status=status, retry_after=retry_after)
        if status >= 400:
            return TeacherError(FailureClass.BAD_REQUEST, f"status {status}", status=status)
        try:
            orjson.loads(reply.body)
        except ValueError:
            return TeacherError(FailureClass.MALFORMED, "not JSON", status=status)
        return None

    def read(self, body: bytes) -> Reading:
        data = orjson.loads(body)
        if data["text"] == "unreadable":
            raise AnswerError(FailureClass.UNREADABLE, "lone surrogate", raw="?")
        given, made, cached, reasoning = data["usage"]
        return Reading(data["text"], None, "stop", Usage(given, made, cached, 0, reasoning), self.model)

    async def start(self) -> None:
        self.open = True

    async def close(self) -> None:
        self.open = False


async def echo(probe: Probe, n: int) -> Reply:
    return Reply(200, body(probe.wires[-1]["messages"][-1]["content"]))


def ask_for(text: str, *, teacher: str = "main", max_tokens: int = 20) -> Request:
    return Request(teacher, (Message("user", text),), SamplingParams(max_tokens=max_tokens))


class MemoryStore:
    """An `AnswerStore` that forgets: for tests about time and load."""

    def __init__(self) -> None:
        self.records: dict[str, Record] = {}
        self.paid: dict[str, Amount] = {}
        self.lost: dict[str, Amount] = {}
        self.exposed: dict[str, Amount] = {}
        self.unsaved = 0

    def get(self, key: str) -> Record | None:
        return self.records.get(key)

    async def put(self, record: Record, *, replace: bool = False) -> Record:
        self.paid[record.run] = self.paid.get(record.run, Amount()) + record.amount
        if replace:
            self.records[record.key] = record
        return self.records.setdefault(record.key, record)

    def lose(self, run: str, amount: Amount) -> None:
        self.lost[run] = self.lost.get(run, Amount()) + amount

    async def expose(self, run: str, amount: Amount) -> None:
        self.exposed[run] = amount

    def relax(self, run: str, amount: Amount) -> None:
        self.exposed[run] = amount

    def recover(self, run: str) -> Amount:
        amount = self.exposed.pop(run, Amount())
        self.lose(run, amount)
        return amount

    def spent(self, run: str) -> Spent:
        amount, _ = self.amounts(run)
        return Spent(amount.usd, amount.tokens)

    def amounts(self, run: str) -> tuple[Amount, Amount]:
        return self.paid.get(run, Amount()), self.lost.get(run, Amount())

    def used_since(self, provider: str, model: str, since: float) -> list[tuple[float, str, int, int]]:
        return [
            (record.created, record.run, 1, record.input + record.output)
            for record in self.records.values()
            if (record.provider, record.model) == (provider, model) and record.created >= since
        ]

    def stats(self) -> StoreStats:
        return StoreStats(len(self.records), 0, 0, Decimal(0), 0, {})

    async def flush(self, timeout: float) -> int:  # noqa: ASYNC109
        return 0

    def close(self) -> None:
        pass


class Time:
    """A clock that jumps to the next sleeper whenever the event loop has nothing else to do.

    Use `async with Time() as time:` and hand `time.clock` and `time.sleep` to what is tested.
    """

    def __init__(self) -> None:
        self.now = 0.0
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []
        self._order = count()
        self._task: asyncio.Task[None] | None = None

    def clock(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (self.now + max(0.0, seconds), next(self._order), future))
        await future

    async def __aenter__(self) -> Time:
        self._task = asyncio.create_task(self._run())
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._task is not None
        self._task.cancel()

    async def _run(self) -> None:
        loop: Any = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(0)
            if loop._ready:  # somebody has work to do at this moment
                continue
            while self._sleepers and self._sleepers[0][2].done():
                heapq.heappop(self._sleepers)
            if not self._sleepers:
                await asyncio.sleep(0.001)
                continue
            due, _, future = heapq.heappop(self._sleepers)
            self.now = max(self.now, due)
            future.set_result(None)
