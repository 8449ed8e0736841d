"""Clocks that jump: a wall clock that is set right, a machine that slept. Limits hold, nothing comes in a burst."""

from __future__ import annotations

import asyncio
import random
import time as wall_time
from typing import Any

import pytest
from gateway_doubles import MemoryStore, Probe, Time, ask_for, body

from distill.gateway import Gateway
from distill.recipe import Budget, TeacherConfig
from distill.teachers import Reply

PER_MINUTE = 120


class Sleeper(Time):
    """A clock that stands at an hour and then at a later one, as one that counts through the sleep of a machine."""

    def jump(self, seconds: float) -> None:
        self.now += seconds


async def run_through(time: Time, starts: list[float], *, rows: int, reply: Reply | None = None) -> None:
    async def behave(probe: Probe, n: int) -> Reply:
        starts.append(time.now)
        await time.sleep(0.5)
        return Reply(200, body("x")) if reply is None or n != 5 else reply

    config = TeacherConfig.model_validate(
        {"model": "m", "price": {"input": 1, "output": 1}, "limits": {"requests_per_minute": PER_MINUTE}}
    )
    async with Gateway(
        {"main": Probe(behave)},
        {"main": config},
        MemoryStore(),
        run="r",
        budget=Budget(),
        clock=time.clock,
        sleep=time.sleep,
        random=lambda: random.Random(1),
    ) as door:
        await asyncio.gather(*(door.ask(ask_for(f"{n}")) for n in range(rows)))


def most_in_a_minute(starts: list[float]) -> int:
    starts = sorted(starts)
    return max(sum(1 for other in starts if start <= other < start + 60) for start in starts)


@pytest.mark.parametrize("jump", [-86_400.0, 86_400.0])
async def test_a_wall_clock_that_is_set_changes_nothing(jump: float, monkeypatch: pytest.MonkeyPatch) -> None:
    real = wall_time.time
    shift = 0.0
    monkeypatch.setattr(wall_time, "time", lambda: real() + shift)
    async with Time() as time:
        starts: list[float] = []

        async def set_clock() -> None:
            nonlocal shift
            await time.sleep(40)
            shift = jump

        await asyncio.gather(set_clock(), run_through(time, starts, rows=300))
        assert most_in_a_minute(starts) <= PER_MINUTE
        assert time.now <= 300 / PER_MINUTE * 60 * 1.05  # and no slower


async def test_a_wait_that_was_named_is_not_cut_short_by_the_wall_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    real = wall_time.time
    shift = 0.0
    monkeypatch.setattr(wall_time, "time", lambda: real() + shift)
    async with Time() as time:
        starts: list[float] = []

        async def set_clock() -> None:
            nonlocal shift
            await time.sleep(10)
            shift = 86_400.0

        refusal = Reply(429, b"{}", {"retry-after": "300"})
        await asyncio.gather(set_clock(), run_through(time, starts, rows=40, reply=refusal))
    refused = sorted(starts)[4]
    assert not [start for start in starts if refused + 2.0 < start < refused + 300.0]


async def test_a_machine_that_slept_makes_no_burst() -> None:
    async with Sleeper() as time:
        starts: list[float] = []

        async def sleep() -> None:
            await time.sleep(40)
            time.jump(8 * 3600)

        await asyncio.gather(sleep(), run_through(time, starts, rows=300))
    assert most_in_a_minute(starts) <= PER_MINUTE
    assert max(starts) > 8 * 3600


def test_the_default_clock_never_jumps() -> None:
    signature: Any = Gateway.__init__.__kwdefaults__
    assert signature["clock"] is wall_time.monotonic
