"""Questions asked by batch: the same answers, whatever becomes of the batches, and nothing paid twice."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from distill.errors import BudgetReached, FailureClass, Halted, RunError, TeacherError
from distill.gateway import Batching, BatchLedger, Event, Gateway, SqliteStore
from distill.recipe import Budget, TeacherConfig
from distill.teachers import Answer, Message, Request, SamplingParams, make_batches, make_teacher
from tests.support.batch_server import BatchServer

PROVIDERS = ("openai", "anthropic")


def ask_for(text: str) -> Request:
    return Request("main", (Message("user", text),), SamplingParams(max_tokens=64))


async def until(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110 - what is waited for is another program
        await asyncio.sleep(0.01)


@dataclass
class Desk:
    """A workspace with one teacher behind the server."""

    folder: Path
    server: BatchServer
    provider: str

    def config(self, **more: Any) -> TeacherConfig:
        url = self.server.base_url if self.provider == "openai" else self.server.anthropic_url
        batch = {"poll_s": 0.05, "linger_s": 30, **more.pop("batch", {})}
        return TeacherConfig.model_validate(
            {
                "provider": self.provider,
                "model": "mock",
                "base_url": url,
                "api_key": "key-of-a-test-0001",
                "mode": "batch",
                "price": {"input": 2, "output": 4},
                "batch": batch,
                **more,
            }
        )

    @contextlib.asynccontextmanager
    async def gateway(
        self,
        *,
        run: str = "r",
        budget: Budget | None = None,
        detach: bool = False,
        at: Callable[[str], None] = lambda step: None,
        events: list[Event] | None = None,
        clock: Callable[[], float] = time.monotonic,
        settle_s: float = 0.2,
        **more: Any,
    ) -> AsyncIterator[Gateway]:
        config = self.config(**more)
        with (
            SqliteStore.open(self.folder / "answers.sqlite") as store,
            BatchLedger.open(self.folder / "batches.sqlite") as ledger,
        ):
            batching = Batching(
                ledger,
                {"main": make_batches("main", config)} if config.mode != "online" else {},
                detach=detach,
                at=at,
                settle_s=settle_s,
                tick_s=0.01,
                first_poll_s=0.02,
            )
            async with Gateway(
                {"main": make_teacher("main", config)},
                {"main": config},
                store,
                run=run,
                budget=budget or Budget(),
                batching=batching,
                clock=clock,
                on_event=events.append if events is not None else None,
            ) as gateway:
                yield gateway

    async def ask(self, gateway: Gateway, count: int, start: int = 0) -> list[Answer]:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(gateway.ask(ask_for(f"question {start + n}"))) for n in range(count)]
        return [task.result() for task in tasks]

    def left_open(self) -> int:
        with BatchLedger.open(self.folder / "batches.sqlite") as ledger:
            account = make_batches("main", self.config()).account
            return len(ledger.open_entries(account, "mock"))


@pytest.fixture(params=PROVIDERS)
async def desk(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Desk]:
    async with BatchServer(work_s=0.05) as server:
        yield Desk(tmp_path, server, request.param)


async def test_questions_gather_into_one_batch_and_every_answer_is_its_own(desk: Desk) -> None:
    async with desk.gateway() as gateway:
        answers = await desk.ask(gateway, 40)
        assert gateway.stats["main"].answered == 40
    assert len({answer.key for answer in answers}) == 40
    assert desk.server.stats() == {
        "batches": 1, "paid": 40, "distinct": 40, "twice": 0, "online": 0, "orphans": 0, "running": 0
    }  # fmt: skip
    assert desk.left_open() == 0
    # The same questions online get the same stored answers, at nothing.
    async with desk.gateway(mode="online") as gateway:
        again = await desk.ask(gateway, 40)
        assert gateway.stats["main"].sent == 0
    assert [a.text for a in again] == [a.text for a in answers]


async def test_an_answer_costs_half_and_a_discount_of_the_recipe_replaces_that(desk: Desk) -> None:
    async with desk.gateway() as gateway:
        (half,) = await desk.ask(gateway, 1)
    async with desk.gateway(batch={"discount": "0.25"}) as gateway:
        (quarter_off,) = await desk.ask(gateway, 1, start=1)
    async with desk.gateway(mode="online") as gateway:
        (whole,) = await desk.ask(gateway, 1, start=2)
        spent = gateway.spent
    full = [Decimal(a.usage.input) * 2 + Decimal(a.usage.output) * 4 for a in (half, quarter_off, whole)]
    assert half.cost == full[0] / 2 / 1_000_000
    assert quarter_off.cost == full[1] * Decimal("0.75") / 1_000_000
    assert whole.cost == full[2] / 1_000_000
    assert spent == half.cost + quarter_off.cost + whole.cost


async def test_batches_keep_to_the_number_that_is_allowed(desk: Desk) -> None:
    async with desk.gateway(batch={"max_requests": 7}) as gateway:
        await desk.ask(gateway, 20)
    assert sorted(len(job.requests) for job in desk.server.jobs.values()) == [6, 7, 7]


async def test_batches_keep_to_the_size_that_is_allowed(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    made = type(make_batches("main", desk.config()))
    monkeypatch.setattr(made, "most_bytes", 3000)
    async with desk.gateway() as gateway:
        await desk.ask(gateway, 40)
    sizes = [sum(len(body) for _, body in job.requests) for job in desk.server.jobs.values()]
    assert len(sizes) > 3
    assert max(sizes) <= 3000


@pytest.mark.parametrize("fate", ["errors:0.3", "expired:0.5", "cancelled:0.5", "lost:0.2", "expired:0"])
async def test_what_succeeded_is_kept_and_the_rest_is_asked_again(desk: Desk, fate: str) -> None:
    desk.server.script.append(fate)
    async with desk.gateway(max_attempts=8) as gateway:
        tasks = [asyncio.create_task(gateway.ask(ask_for(f"question {n}"))) for n in range(30)]
        results = await asyncio.gather(*tasks, return_exceptions=True)
        refused = [r for r in results if isinstance(r, TeacherError)]
        assert all(r.failure is FailureClass.BAD_REQUEST and r.stored for r in refused)
        assert len(refused) == (0 if fate[0] != "e" or fate.startswith("expired") else 3)
    told = desk.server.stats()
    assert told["batches"] == 2
    assert (told["twice"], told["orphans"], told["paid"]) == (0, 0, 30 - len(refused))


@pytest.mark.parametrize("fate", ["500", "503", "429", "accepted_500", "accepted_reset"])
async def test_a_batch_is_created_once_whatever_the_reply_to_its_creation(desk: Desk, fate: str) -> None:
    desk.server.script.append(fate)
    desk.server.somebody_elses(desk.provider, 12)  # type: ignore[arg-type]  # as many requests as ours
    async with desk.gateway() as gateway:
        await desk.ask(gateway, 12)
    told = desk.server.stats()
    assert (told["paid"], told["twice"], told["orphans"]) == (12, 0, 0)


async def test_a_refused_batch_stops_the_run_and_says_why(tmp_path: Path) -> None:
    async with BatchServer(work_s=0.05, script=["failed"]) as server:
        desk = Desk(tmp_path, server, "openai")
        async with desk.gateway() as gateway:
            results = await asyncio.gather(*(gateway.ask(ask_for(f"{n}")) for n in range(3)), return_exceptions=True)
        assert all(isinstance(result, RunError) for result in results)
        assert "refused a batch of 3 requests: model_not_found" in str(results[0])


async def test_a_full_queue_means_smaller_batches_later(tmp_path: Path) -> None:
    async with BatchServer(work_s=0.05, script=["queue_full"]) as server:
        desk, speed = Desk(tmp_path, server, "openai"), 200
        config = desk.config()

        async def sleep(seconds: float) -> None:
            await asyncio.sleep(seconds / speed if seconds > 1 else seconds)

        with (
            SqliteStore.open(tmp_path / "answers.sqlite") as store,
            BatchLedger.open(tmp_path / "batches.sqlite") as ledger,
        ):
            batching = Batching(ledger, {"main": make_batches("main", config)}, tick_s=0.01, first_poll_s=0.02)
            async with Gateway(
                {"main": make_teacher("main", config)},
                {"main": config},
                store,
                run="r",
                budget=Budget(),
                batching=batching,
                clock=lambda: time.monotonic() * speed,
                sleep=sleep,
            ) as gateway:
                await desk.ask(gateway, 20)
        sizes = [len(job.requests) for job in server.jobs.values()]
        assert sizes == [20, 10, 10]
        assert server.stats()["paid"] == 20


async def test_a_cap_holds_over_batches(desk: Desk) -> None:
    async with desk.gateway() as gateway:
        (answer,) = await desk.ask(gateway, 1)
    async with desk.gateway(budget=Budget(usd=Decimal("0.0015"))) as gateway:
        results = await asyncio.gather(
            *(gateway.ask(ask_for(f"question {n}")) for n in range(1, 60)), return_exceptions=True
        )
        assert gateway.spent <= Decimal("0.0015")
        assert any(isinstance(r, BudgetReached) for r in results)
        assert sum(isinstance(r, Answer) for r in results) > 3
    assert desk.server.stats()["twice"] == 0
    assert answer.cost > 0


async def test_a_detached_run_ends_and_the_next_one_picks_its_batches_up(desk: Desk) -> None:
    desk.server.work_s = 1.0
    async with desk.gateway(detach=True, budget=Budget(usd=Decimal(1))) as gateway:
        asking = (gateway.ask(ask_for(f"question {n}")) for n in range(10))
        results = await asyncio.gather(*asking, return_exceptions=True)
        assert all(isinstance(r, Halted) for r in results)
        assert "1 batch with 10 requests" in str(results[0])
    assert desk.server.stats()["running"] == 1
    assert desk.left_open() == 1
    async with desk.gateway(budget=Budget(usd=Decimal(1))) as gateway:
        assert gateway.unknown_cost == 0
        await desk.ask(gateway, 10)
        assert gateway.unknown_cost == 0
        assert 0 < gateway.spent < Decimal("0.01")
    told = desk.server.stats()
    assert (told["batches"], told["twice"], told["orphans"]) == (1, 0, 0)


async def test_another_run_waits_for_a_batch_that_holds_its_question(desk: Desk) -> None:
    desk.server.work_s = 0.5
    async with desk.gateway(detach=True, run="first") as gateway:
        await asyncio.gather(*(gateway.ask(ask_for(f"question {n}")) for n in range(10)), return_exceptions=True)
    async with desk.gateway(run="second") as gateway:
        answers = await desk.ask(gateway, 12)
        assert sum(answer.reused for answer in answers) == 10
    told = desk.server.stats()
    assert (told["batches"], told["paid"], told["twice"]) == (2, 12, 0)
    # The first run paid for its ten, although the second one brought them in.
    async with desk.gateway(run="first", mode="online") as gateway:
        assert gateway.spent == sum(answer.cost for answer in answers if answer.reused)


async def test_an_interruption_leaves_the_batches_running(desk: Desk) -> None:
    desk.server.work_s = 30.0
    async with desk.gateway() as gateway:
        asking = asyncio.gather(*(gateway.ask(ask_for(f"question {n}")) for n in range(5)), return_exceptions=True)
        await until(lambda: bool(desk.server.jobs))
        async with asyncio.timeout(5):
            gateway.drain()
            assert all(isinstance(result, Halted) for result in await asking)
    desk.server.work_s = 0.0
    async with desk.gateway() as gateway:
        await desk.ask(gateway, 5)
    told = desk.server.stats()
    assert (told["batches"], told["twice"], told["orphans"]) == (1, 0, 0)


async def test_auto_goes_online_when_the_deadline_nears(desk: Desk) -> None:
    desk.server.work_s = 60.0
    events: list[Event] = []
    later = 0.0
    async with desk.gateway(
        mode="auto", batch={"within_hours": 9}, events=events, clock=lambda: time.monotonic() + later
    ) as gateway:
        asking = asyncio.create_task(desk.ask(gateway, 120))
        await until(lambda: any(event.message.startswith("submitted") for event in events))
        later = 8.9 * 3600  # the clock jumps to the early morning
        await until(lambda: any(job.cancelled for job in desk.server.jobs.values()))
        desk.server.work_s = 0.1
        await asking
    told = desk.server.stats()
    assert (told["paid"], told["twice"], told["orphans"]) == (120, 0, 0)
    assert told["online"] > 0
    assert any("broken off" in event.message for event in events)


async def test_auto_asks_a_few_online(desk: Desk) -> None:
    async with desk.gateway(mode="auto") as gateway:
        await desk.ask(gateway, 5)
    assert desk.server.stats()["online"] == 5
    assert desk.server.stats()["batches"] == 0
