"""The pump keeps order, bounds its memory, and stops without losing what is under way."""

from __future__ import annotations

import asyncio
import itertools
import random

import pytest

from distill.engine.pump import Pump


async def test_results_come_in_order_whatever_finishes_first() -> None:
    delays = random.Random(1)
    seen: list[int] = []

    async def work(n: int) -> int:
        await asyncio.sleep(delays.random() / 500)
        return n

    async def consume(batch: list[int]) -> None:
        seen.extend(batch)

    await Pump(iter(range(500)), work, workers=40, window=64).run(consume, batch=16)
    assert seen == list(range(500))


async def test_a_slow_item_holds_the_fast_ones_at_the_window() -> None:
    release = asyncio.Event()
    pulled = itertools.count()
    highest = 0

    def items():
        nonlocal highest
        for n in pulled:
            highest = n
            if n >= 1000:
                return
            yield n

    async def work(n: int) -> int:
        if n == 0:
            await release.wait()
        return n

    seen: list[int] = []

    async def consume(batch: list[int]) -> None:
        seen.extend(batch)

    pump = Pump(items(), work, workers=8, window=50)
    task = asyncio.create_task(pump.run(consume, batch=10))
    for _ in range(50):
        await asyncio.sleep(0)
    assert highest <= 50, "the window bounds how far workers run ahead"
    release.set()
    await task
    assert seen == list(range(1000))


async def test_work_that_never_waits_still_lets_the_consumer_run() -> None:
    lengths: list[int] = []

    async def work(n: int) -> int:
        return n

    async def consume(batch: list[int]) -> None:
        lengths.append(len(batch))

    pump = Pump(iter(range(5000)), work, workers=4, window=256)
    await pump.run(consume, batch=100)
    assert sum(lengths) == 5000
    assert max(lengths) <= 100


async def test_stopping_finishes_what_is_under_way_and_counts_what_is_not() -> None:
    seen: list[int] = []

    async def work(n: int) -> int | None:
        await asyncio.sleep(0.001)
        if n == 20:
            pump.stop()
        return None if n == 22 else n

    async def consume(batch: list[int]) -> None:
        seen.extend(batch)

    pump: Pump[int, int] = Pump(itertools.count(), work, workers=5, window=50)
    await pump.run(consume, batch=7)
    assert seen == [n for n in range(pump.started) if n != 22]
    assert pump.unfinished == 1


async def test_an_error_of_the_work_ends_the_pump() -> None:
    async def work(n: int) -> int:
        if n == 3:
            raise ValueError("broken")
        return n

    async def consume(batch: list[int]) -> None:
        return

    with pytest.raises(ExceptionGroup) as caught:
        await Pump(iter(range(10)), work, workers=2, window=4).run(consume, batch=2)
    assert caught.group_contains(ValueError, match="broken")


async def test_rows_of_a_slow_teacher_are_handed_on_before_the_batch_is_full() -> None:
    now = 0.0
    sizes: list[int] = []

    async def work(n: int) -> int:
        nonlocal now
        now += 0.3  # seconds a result takes, by the clock of the test
        await asyncio.sleep(0)
        return n

    async def consume(batch: list[int]) -> None:
        sizes.append(len(batch))

    await Pump(iter(range(21)), work, workers=1, window=64, clock=lambda: now).run(consume, batch=256)
    assert sizes[0] == 1
    assert sum(sizes) == 21
    assert max(sizes) <= 4
