"""The adaptive window against servers of several kinds, in virtual time."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable

from gateway_doubles import Behaviour, MemoryStore, Probe, Time, ask_for, body

from distill.gateway import Gateway, TeacherStats
from distill.recipe import Budget, Limits, Price, TeacherConfig
from distill.teachers import Reply

FREE = Price(input=0, output=0)  # type: ignore[arg-type]


async def load(
    server: Callable[[Time], Behaviour],
    *,
    rows: int,
    ceiling: int,
    limits: Limits | None = None,
    provider: str = "openai",
) -> tuple[float, TeacherStats, Probe]:
    """Rows per second, counts, and the teacher, when `rows` questions are asked by more askers than the ceiling."""
    async with Time() as time:
        probe = Probe(server(time))
        config = TeacherConfig.model_validate(
            {
                "provider": provider,
                "model": "m",
                "price": FREE,
                "max_concurrency": ceiling,
                "limits": limits or Limits(),
            }
        )
        questions = iter(range(rows))
        async with Gateway(
            {"main": probe},
            {"main": config},
            MemoryStore(),
            run="r",
            budget=Budget(),
            clock=time.clock,
            sleep=time.sleep,
            random=lambda: random.Random(3),
        ) as gateway:

            async def worker() -> None:
                for n in questions:
                    await gateway.ask(ask_for(f"{n}"))

            async with asyncio.TaskGroup() as group:
                for _ in range(ceiling + ceiling // 4):
                    group.create_task(worker())
            stats = gateway.stats["main"]
        return rows / time.now, stats, probe


def steady(latency: float) -> Callable[[Time], Behaviour]:
    def server(time: Time) -> Behaviour:
        async def behave(probe: Probe, n: int) -> Reply:
            await time.sleep(latency)
            return Reply(200, body("x"))

        return behave

    return server


def refusing(most: int, latency: float = 0.5) -> Callable[[Time], Behaviour]:
    def server(time: Time) -> Behaviour:
        busy = 0

        async def behave(probe: Probe, n: int) -> Reply:
            nonlocal busy
            if busy >= most:
                await time.sleep(0.01)
                return Reply(429, b"{}")
            busy += 1
            await time.sleep(latency)
            busy -= 1
            return Reply(200, body("x"))

        return behave

    return server


def queueing(slots: int, latency: float = 1.0) -> Callable[[Time], Behaviour]:
    def server(time: Time) -> Behaviour:
        desks = asyncio.Semaphore(slots)
        rng = random.Random(1)

        async def behave(probe: Probe, n: int) -> Reply:
            async with desks:
                await time.sleep(latency * rng.uniform(0.8, 1.2))
            return Reply(200, body("x"))

        return behave

    return server


async def test_a_server_of_constant_latency_is_never_slowed() -> None:
    rate, stats, _ = await load(steady(0.5), rows=2000, ceiling=64)
    assert rate >= 0.95 * 128
    rate, stats, _ = await load(steady(0.5), rows=2500, ceiling=256)
    assert rate >= 0.93 * 512
    assert stats.limit == 256


async def test_a_server_that_refuses_is_filled_and_seldom_asked_too_much() -> None:
    rate, stats, _ = await load(refusing(50), rows=2500, ceiling=256)
    assert rate >= 0.95 * 100
    assert stats.by_status[429] / stats.sent <= 0.05
    assert stats.failed == 0


async def test_a_server_that_queues_gets_a_short_queue_and_loses_nothing() -> None:
    rate, stats, _ = await load(queueing(8), rows=1500, ceiling=64)
    assert rate >= 0.95 * 8
    assert stats.limit <= 24


async def test_refusals_at_random_do_not_starve_the_run() -> None:
    rng = random.Random(5)

    def flaky(time: Time) -> Behaviour:
        async def behave(probe: Probe, n: int) -> Reply:
            if rng.random() < 0.03:
                return Reply(429, b"{}")
            await time.sleep(0.5)
            return Reply(200, body("x"))

        return behave

    rate, _, _ = await load(flaky, rows=2000, ceiling=128)
    assert rate >= 0.6 * 256


async def test_a_declared_rate_is_used_and_not_passed() -> None:
    rate, stats, _ = await load(steady(0.5), rows=1000, ceiling=256, limits=Limits(requests_per_minute=600))
    assert 0.95 * 10 <= rate <= 10
    assert stats.by_status[429] == 0


async def test_a_refusal_with_a_named_time_pauses_everybody() -> None:
    starts: list[float] = []

    def server(time: Time) -> Behaviour:
        async def behave(probe: Probe, n: int) -> Reply:
            starts.append(time.now)
            if n == 10:
                return Reply(429, b"{}", {"retry-after": "30"})
            await time.sleep(0.5)
            return Reply(200, body("x"))

        return behave

    await load(server, rows=300, ceiling=16)
    after = sorted(start for start in starts if start > 0)
    assert after[0] >= 30
    assert starts.count(after[0]) <= 2  # a few go ahead to see


async def test_used_up_headers_pause_the_teacher() -> None:
    starts: list[float] = []

    def server(time: Time) -> Behaviour:
        async def behave(probe: Probe, n: int) -> Reply:
            starts.append(time.now)
            await time.sleep(0.1)
            spent = {"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "20s"}
            return Reply(200, body("x"), spent if n == 1 else {})

        return behave

    await load(server, rows=5, ceiling=1)
    assert starts[1] - starts[0] >= 20
