"""The simulated teacher: the same answers every time, the behaviour that was asked for, and its label on everything."""

from __future__ import annotations

import time
from collections import Counter
from typing import Any

import orjson
import pytest

from distill.errors import FailureClass, TeacherError
from distill.recipe import TeacherConfig
from distill.teachers import Message, Request, SamplingParams
from distill.teachers.simulated import SimulatedTeacher


class Clock:
    """Time that passes only by waiting."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.now += seconds


def teacher(clock: Clock | None = None, **how: Any) -> SimulatedTeacher:
    clock = clock or Clock()
    config = TeacherConfig.model_validate({"provider": "simulated", "model": "rehearsal", "simulate": how})
    return SimulatedTeacher(config, clock=clock, sleep=clock.sleep)


def question(n: int, **fields: Any) -> Request:
    return Request("main", (Message("user", f"Question number {n}."),), **fields)


async def ask(asked: SimulatedTeacher, request: Request, sample: int = 0) -> Any:
    """A reading, or the failure."""
    try:
        reply = await asked.send(asked.wire(request, sample), timeout=60)
    except TeacherError as error:
        return error
    return asked.failure(reply) or asked.read(reply.body)


async def test_answers_depend_on_the_wire_alone() -> None:
    first, second = teacher(), teacher(p429=0.2, latency_s=3)
    for n in range(20):
        text = (await ask(first, question(n))).text
        other = await ask(second, question(n))
        assert isinstance(other, TeacherError) or other.text == text
    texts = {(await ask(teacher(seed=seed), question(1), sample)).text for seed in (0, 1) for sample in (0, 1, 2)}
    assert len(texts) == 6


async def test_answers_differ_and_are_sentences() -> None:
    asked = teacher()
    texts = [(await ask(asked, question(n))).text for n in range(500)]
    assert len(set(texts)) == 500
    assert all(text.endswith(".") and 10 < len(text.split()) < 60 for text in texts)
    openings = Counter(" ".join(text.split()[:6]) for text in texts)
    assert openings.most_common(1)[0][1] < 8


async def test_everything_says_that_it_is_simulated() -> None:
    asked = teacher()
    reply = await asked.send(asked.wire(question(1), 0), timeout=1)
    assert b"simulated" in reply.body
    assert asked.read(reply.body).model == "simulated/rehearsal"
    assert asked.model == "simulated/rehearsal"


async def test_latency_and_jitter() -> None:
    clock = Clock()
    asked = teacher(clock, latency_s=2.0, jitter=0.5)
    waits: list[float] = []
    for n in range(200):
        before = clock.now
        await ask(asked, question(n))
        waits.append(clock.now - before)
    assert 1.0 <= min(waits) < 1.2
    assert 2.8 < max(waits) <= 3.0
    assert sum(waits) / 200 == pytest.approx(2.0, abs=0.1)


async def test_its_limit_answers_429_with_a_time_that_is_right() -> None:
    clock = Clock()
    asked = teacher(clock, latency_s=0, requests_per_minute=60)
    assert (await ask(asked, question(0))).finish == "stop"
    refused = await ask(asked, question(1))
    assert refused.failure is FailureClass.RATE_LIMITED
    clock.now += refused.retry_after
    assert (await ask(asked, question(1))).finish == "stop"


async def test_faults_come_in_their_shares_and_retries_get_through() -> None:
    asked = teacher(latency_s=0.1, p429=0.1, p500=0.1, ptimeout=0.1)
    outcomes: Counter[str] = Counter()
    for n in range(1000):
        result = await ask(asked, question(n))
        outcomes[result.failure if isinstance(result, TeacherError) else "answer"] += 1
        for _ in range(20):
            if not isinstance(result, TeacherError):
                break
            result = await ask(asked, question(n))
        assert not isinstance(result, TeacherError)
    for failure in (FailureClass.RATE_LIMITED, FailureClass.OVERLOADED, FailureClass.TIMEOUT):
        assert outcomes[failure] == pytest.approx(100, abs=35)


async def test_odd_answers_come_in_their_shares() -> None:
    asked = teacher(latency_s=0, prefusal=0.1, plength=0.1, pduplicate=0.3)
    readings = [await ask(asked, question(n)) for n in range(1000)]
    finishes = Counter(reading.finish for reading in readings)
    assert finishes["refusal"] == pytest.approx(100, abs=35)
    assert finishes["length"] == pytest.approx(100, abs=35)
    texts = Counter(reading.text for reading in readings if reading.finish == "stop")
    assert sum(texts.values()) - len(texts) == pytest.approx(292, abs=50)


async def test_a_schema_is_satisfied() -> None:
    schema = {
        "type": "object",
        "properties": {"intent": {"enum": ["a", "b"]}, "score": {"type": "integer", "minimum": 1, "maximum": 5}},
        "required": ["intent", "score"],
    }
    value = orjson.loads((await ask(teacher(), question(1, schema=schema))).text)
    assert value["intent"] in ("a", "b")
    assert 1 <= value["score"] <= 5


async def test_a_short_limit_gives_a_short_answer() -> None:
    reading = await ask(teacher(), question(1, params=SamplingParams(max_tokens=20)))
    assert len(reading.text.split()) <= 12
    assert reading.usage.output <= 20


async def test_it_waits_no_longer_than_the_timeout() -> None:
    clock = Clock()
    error = await ask(teacher(clock, latency_s=100), question(1))
    assert error.failure is FailureClass.TIMEOUT
    assert clock.now == 60


async def test_it_costs_next_to_nothing() -> None:
    asked = teacher(latency_s=0)
    wires = [asked.wire(question(n), 0) for n in range(2000)]
    best = 1.0
    for _ in range(3):
        start = time.process_time()
        for wire in wires:
            await asked.send(wire, timeout=60)
        best = min(best, (time.process_time() - start) / len(wires))
    assert best < 200e-6  # measured: about 20 µs on an idle core
