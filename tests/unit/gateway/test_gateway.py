# ruff: noqa: PT012 - what raises is often a loop
from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from gateway_doubles import Behaviour, MemoryStore, Probe, Time, ask_for, body, echo
from hypothesis import given, settings
from hypothesis import strategies as st

from distill.errors import (
    AnswerError,
    BudgetReached,
    DistillError,
    FailureClass,
    Halted,
    InputError,
    RunError,
    TeacherError,
)
from distill.gateway import AnswerStore, Event, Gateway, SqliteStore
from distill.gateway.budget import Amount
from distill.recipe import Budget, TeacherConfig
from distill.teachers import Reply

PRICE = {"input": "1", "output": "2"}


def gateway(
    teacher: Probe,
    store: AnswerStore | None = None,
    *,
    run: str = "r",
    budget: Mapping[str, Any] | None = None,
    time: Time | None = None,
    events: list[Event] | None = None,
    **config: Any,
) -> Gateway:
    given_time: dict[str, Any] = {} if time is None else {"clock": time.clock, "sleep": time.sleep}
    settings = TeacherConfig.model_validate({"model": "probe", "price": PRICE, **config})
    return Gateway(
        {"main": teacher},
        {"main": settings},
        store or MemoryStore(),
        run=run,
        budget=Budget.model_validate(budget or {}),
        random=lambda: random.Random(1),
        on_event=None if events is None else events.append,
        **given_time,
    )


def answering(*replies: Reply | TeacherError) -> Behaviour:
    """One reply an attempt, the last one for ever."""

    async def behave(probe: Probe, n: int) -> Reply:
        reply = replies[min(n, len(replies)) - 1]
        await asyncio.sleep(0)
        if isinstance(reply, TeacherError):
            raise reply
        return reply

    return behave


GOOD = Reply(200, body("fine"))


def lost(kind: FailureClass) -> TeacherError:
    return TeacherError(kind, "gone")


# -- answers ------------------------------------------------------------------------------------------------------


async def test_an_answer_is_paid_once_and_replayed_without_suspending(tmp_path: Path) -> None:
    with SqliteStore.open(tmp_path / "answers.sqlite") as store:
        async with gateway(Probe(), store) as door:
            first = await door.ask(ask_for("hello"))
            assert (first.text, first.cost, first.reused) == ("hello", Decimal("0.00002"), False)
        probe = Probe()
        async with gateway(probe, store) as door:
            coroutine = door.ask(ask_for("hello"))
            with pytest.raises(StopIteration) as stopped:  # it returns at the first step: nothing was awaited
                coroutine.send(None)
            assert stopped.value.value == first
            assert (probe.sent, door.stats["main"].replayed, door.spent) == (0, 1, Decimal("0.00002"))
        async with gateway(probe, store, run="another") as door:
            other = await door.ask(ask_for("hello"))
            assert other.reused
            assert other.cost == first.cost
            assert (door.stats["main"].reused, door.spent) == (1, 0)


async def test_samples_are_independent_draws() -> None:
    probe = Probe()
    async with gateway(probe) as door:
        await door.ask(ask_for("hello"), sample=0)
        await door.ask(ask_for("hello"), sample=1)
    assert probe.sent == 2


async def test_the_answer_is_on_disk_before_anybody_sees_it(tmp_path: Path) -> None:
    path = tmp_path / "answers.sqlite"
    with SqliteStore.open(path) as store, SqliteStore.open(path) as onlooker:
        async with gateway(Probe(), store) as door:
            for n in range(20):
                answer = await door.ask(ask_for(f"{n}"))
                onlooker._known.add(answer.key)
                assert onlooker.get(answer.key) is not None


async def test_equal_questions_at_the_same_time_are_one_call() -> None:
    release = asyncio.Event()

    async def behave(probe: Probe, n: int) -> Reply:
        await release.wait()
        return GOOD

    probe = Probe(behave)
    async with gateway(probe) as door:
        asks = [asyncio.create_task(door.ask(ask_for("same"))) for _ in range(5)]
        await asyncio.sleep(0.01)
        asks[0].cancel()  # the first asker leaves; the call goes on for the others
        await asyncio.sleep(0)
        release.set()
        answers = await asyncio.gather(*asks[1:])
        assert {answer.text for answer in answers} == {"fine"}
        assert (probe.sent, door.stats["main"].shared) == (1, 4)


async def test_a_call_that_everybody_has_left_is_still_stored() -> None:
    store = MemoryStore()
    release = asyncio.Event()

    async def behave(probe: Probe, n: int) -> Reply:
        await release.wait()
        return GOOD

    async with gateway(Probe(behave), store) as door:
        ask = asyncio.create_task(door.ask(ask_for("x")))
        await asyncio.sleep(0.01)
        ask.cancel()
        await asyncio.sleep(0)
        release.set()
    assert len(store.records) == 1


async def test_a_better_reader_reads_what_is_stored() -> None:
    store = MemoryStore()
    async with gateway(Probe(), store) as door:
        await door.ask(ask_for("old"))

    class Better(Probe):
        def read(self, body: bytes) -> Any:
            reading = super().read(body)
            return type(reading)(reading.text.upper(), None, "stop", reading.usage, "m")

    better = Better()
    async with gateway(better, store) as door:
        assert (await door.ask(ask_for("old"))).text == "OLD"
    assert better.sent == 0


async def test_an_unreadable_answer_is_kept_and_its_worst_case_counted() -> None:
    store = MemoryStore()
    probe = Probe(answering(Reply(200, body("unreadable"))))
    async with gateway(probe, store) as door:
        for _ in range(2):
            with pytest.raises(AnswerError) as caught:
                await door.ask(ask_for("x"))
            assert caught.value.keys == tuple(store.records)
        assert probe.sent == 1
        assert door.unknown_cost > 0


@pytest.mark.parametrize("given", [0, 12])
async def test_an_answer_that_does_not_say_what_it_used_counts_at_its_worst_case(given: int) -> None:
    store = MemoryStore()
    probe = Probe(answering(Reply(200, body("fine", given=given, made=0))))
    async with gateway(probe, store, budget={"usd": "0.001"}) as door:
        with pytest.raises(BudgetReached):
            for n in range(1000):
                await door.ask(ask_for(f"question {n}"))
        assert probe.sent > 1
        assert door.spent == 0
        assert Decimal("0.0005") < door.unknown_cost <= Decimal("0.001")
    assert store.amounts("r") == (Amount(), door._account.purse.lost)  # pyright: ignore[reportPrivateUsage]


async def test_a_prompt_that_cannot_be_written_is_a_fate_and_not_a_crash() -> None:
    async with gateway(Probe()) as door:
        with pytest.raises(AnswerError) as caught:
            await door.ask(ask_for("\ud800"))
        assert caught.value.failure is FailureClass.UNREADABLE


# -- failures -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "failure",
    [
        Reply(429, b""),
        Reply(500, b""),
        Reply(503, b""),
        Reply(529, b""),
        Reply(200, b"<html>"),
        lost(FailureClass.TIMEOUT),
        lost(FailureClass.CONNECTION),
        lost(FailureClass.CRASHED),
    ],
)
async def test_what_passes_is_tried_again(failure: Reply | TeacherError) -> None:
    async with Time() as time:
        probe = Probe(answering(failure, failure, GOOD))
        async with gateway(probe, time=time) as door:
            assert (await door.ask(ask_for("x"))).text == "fine"
            assert (door.stats["main"].retries, probe.sent) == (2, 3)


async def test_attempts_have_an_end() -> None:
    async with Time() as time:
        probe = Probe(answering(Reply(500, b"")))
        async with gateway(probe, time=time, max_attempts=4) as door:
            with pytest.raises(TeacherError) as caught:
                await door.ask(ask_for("x"))
            assert (caught.value.failure, probe.sent) == (FailureClass.OVERLOADED, 4)


async def test_a_refusal_for_good_is_sent_once_and_stored_once_the_teacher_is_known_to_work() -> None:
    store = MemoryStore()

    async def behave(probe: Probe, n: int) -> Reply:
        text = probe.wires[-1]["messages"][-1]["content"]
        return Reply(400, b"{}") if text == "bad" else Reply(451, b"{}") if text == "ugly" else GOOD

    probe = Probe(behave)
    async with gateway(probe, store) as door:
        for _ in range(2):
            with pytest.raises(TeacherError) as caught:
                await door.ask(ask_for("bad"))
            assert caught.value.stored
        assert (probe.sent, len(store.records)) == (1, 0)  # perhaps the model's name is wrong: only remembered
        await door.ask(ask_for("good"))
        with pytest.raises(TeacherError):
            await door.ask(ask_for("ugly"))
        assert len(store.records) == 3
    async with gateway(probe, store) as door:
        for text, kind in (("bad", FailureClass.BAD_REQUEST), ("ugly", FailureClass.FILTERED)):
            with pytest.raises(TeacherError) as caught:
                await door.ask(ask_for(text))
            assert (caught.value.failure, caught.value.stored) == (kind, True)
    assert probe.sent == 3


async def test_an_error_inside_a_200_is_replayed_as_the_error() -> None:
    class Odd(Probe):
        def failure(self, reply: Reply) -> TeacherError | None:
            if b"error" in reply.body:
                return TeacherError(FailureClass.FILTERED, "filtered", status=200)
            return super().failure(reply)

    store = MemoryStore()
    probe = Odd(answering(GOOD, Reply(200, b'{"error": "filtered"}')))
    for _ in range(2):
        async with gateway(probe, store) as door:
            await door.ask(ask_for("a"))
            with pytest.raises(TeacherError):
                await door.ask(ask_for("b"))
    assert probe.sent == 2


async def test_a_missing_model_is_not_stored() -> None:
    store = MemoryStore()
    async with gateway(Probe(answering(GOOD, Reply(404, b"{}"))), store) as door:
        await door.ask(ask_for("a"))
        with pytest.raises(TeacherError):
            await door.ask(ask_for("b"))
    assert len(store.records) == 1


async def test_a_wrong_key_stops_the_run_and_names_the_variable() -> None:
    async with gateway(Probe(answering(Reply(401, b""))), api_key="${TEACHER_KEY}") as door:
        with pytest.raises(RunError, match="TEACHER_KEY") as caught:
            await door.ask(ask_for("x"))
        assert caught.value.exit_code == 1
        with pytest.raises(RunError, match="TEACHER_KEY"):
            await door.ask(ask_for("y"))


async def test_a_key_written_out_is_not_shown() -> None:
    async with gateway(Probe(answering(Reply(401, b""))), api_key="sk-canary") as door:
        with pytest.raises(RunError) as caught:
            await door.ask(ask_for("x"))
        assert "canary" not in str(caught.value)


async def test_no_quota_halts_resumably_without_a_retry() -> None:
    probe = Probe(answering(Reply(402, b"")))
    async with gateway(probe) as door:
        with pytest.raises(Halted) as caught:
            await door.ask(ask_for("x"))
        assert (caught.value.exit_code, probe.sent) == (3, 1)


async def test_a_server_that_is_not_there_ends_the_run_in_seconds() -> None:
    async with Time() as time:
        probe = Probe(answering(lost(FailureClass.CONNECTION)))
        config = {"base_url": "http://127.0.0.1:9/v1"}
        async with gateway(probe, time=time, **config) as door:
            ends = await asyncio.gather(*(door.ask(ask_for(f"{n}")) for n in range(300)), return_exceptions=True)
            stops = [str(end) for end in ends if type(end) is RunError]
            assert len(stops) >= 290
            assert "http://127.0.0.1:9/v1" in stops[0]
            assert "Is the server running" in stops[0]
        assert time.now < 10


async def test_a_server_that_dies_halts_the_run_resumably() -> None:
    async with Time() as time:
        probe = Probe(answering(GOOD, Reply(500, b"oops")))
        async with gateway(probe, time=time, max_attempts=2) as door:
            await door.ask(ask_for("first"))
            kinds: list[type] = []
            for n in range(15):
                try:
                    await door.ask(ask_for(f"{n}"))
                except DistillError as error:
                    kinds.append(type(error))
            assert kinds == [TeacherError] * 9 + [Halted] * 6


async def test_when_every_call_is_refused_nothing_is_stored_and_the_run_says_why() -> None:
    store = MemoryStore()
    async with gateway(Probe(answering(Reply(400, b"no such parameter"))), store) as door:
        for n in range(9):
            with pytest.raises(TeacherError):
                await door.ask(ask_for(f"{n}"))
        with pytest.raises(RunError, match="last 10 calls all failed"):
            await door.ask(ask_for("more"))
    assert not store.records


async def test_a_very_long_wait_halts_instead() -> None:
    async with gateway(Probe(answering(Reply(429, b"", {"retry-after": "7200"})))) as door:
        with pytest.raises(Halted, match="7,200 s"):
            await door.ask(ask_for("x"))


async def test_a_teacher_that_hangs_is_timed_out() -> None:
    async def hang(probe: Probe, n: int) -> Reply:
        raise TimeoutError

    async with gateway(Probe(hang), max_attempts=1) as door:
        with pytest.raises(TeacherError) as caught:
            await door.ask(ask_for("x"))
        assert caught.value.failure is FailureClass.TIMEOUT


async def test_a_bug_in_a_teacher_reaches_the_asker_and_nobody_hangs() -> None:
    async def bug(probe: Probe, n: int) -> Reply:
        raise KeyError("choices")

    async with gateway(Probe(bug)) as door:
        with pytest.raises(KeyError):
            await door.ask(ask_for("x"))


async def test_an_unknown_teacher_is_named() -> None:
    async with gateway(Probe()) as door:
        with pytest.raises(InputError, match="'judge'"):
            await door.ask(ask_for("x", teacher="judge"))


# -- the end ------------------------------------------------------------------------------------------------------


async def test_a_drain_finishes_what_is_under_way_and_sends_nothing_more() -> None:
    store = MemoryStore()
    release = asyncio.Event()

    async def behave(probe: Probe, n: int) -> Reply:
        if n == 1:
            return await echo(probe, n)
        await release.wait()
        return GOOD

    probe = Probe(behave)
    async with gateway(probe, store, max_concurrency=2) as door:
        await door.ask(ask_for("before"))
        asks = [asyncio.create_task(door.ask(ask_for(f"{n}"))) for n in range(5)]
        await asyncio.sleep(0.01)
        door.drain()
        assert not await door.quiesce(0.01)
        assert (await door.ask(ask_for("before"))).text == "before"  # stored answers still come
        with pytest.raises(Halted, match="interrupted"):
            await door.ask(ask_for("new"))
        release.set()
        assert await door.quiesce(5)
        ends = await asyncio.gather(*asks, return_exceptions=True)
        assert sorted(type(end).__name__ for end in ends) == ["Answer", "Answer", "Halted", "Halted", "Halted"]
    assert (probe.sent, len(store.records)) == (3, 3)


async def test_a_drain_wakes_those_who_wait_for_a_retry() -> None:
    probe = Probe(answering(Reply(429, b"", {"retry-after": "600"})))
    async with gateway(probe) as door:
        ask = asyncio.create_task(door.ask(ask_for("x")))
        await asyncio.sleep(0.01)
        door.drain()
        with pytest.raises(Halted, match="interrupted"):
            await asyncio.wait_for(ask, 1)


async def test_leaving_waits_for_what_is_paid() -> None:
    store = MemoryStore()

    async def slow(probe: Probe, n: int) -> Reply:
        await asyncio.sleep(0.05)
        return GOOD

    with pytest.raises(ValueError, match="mine"):
        async with gateway(Probe(slow), store) as door:
            task = asyncio.create_task(door.ask(ask_for("x")))
            await asyncio.sleep(0.01)
            raise ValueError("mine")
    assert (await task).text == "fine"
    assert len(store.records) == 1


async def test_insisting_leaves_at_once() -> None:
    async def never(probe: Probe, n: int) -> Reply:
        await asyncio.Event().wait()
        raise AssertionError

    probe = Probe(never)

    async def work() -> None:
        async with gateway(probe) as door:
            await door.ask(ask_for("x"))

    task = asyncio.create_task(work())
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(task, 1)
    assert not probe.open


async def test_a_full_disk_stops_the_run_and_the_loss_is_said(tmp_path: Path) -> None:
    path = tmp_path / "answers.sqlite"
    with SqliteStore.open(path, max_bytes=120_000) as store:
        with pytest.raises(RunError, match=r"paid answers? could not be stored.*disk is full") as caught:
            async with gateway(Probe(), store) as door:
                for n in range(2000):
                    await door.ask(ask_for(f"{n} " + "x" * 500))
        assert isinstance(caught.value.__context__, RunError)
        assert str(path) in str(caught.value)


async def test_events_tell_what_happens() -> None:
    events: list[Event] = []
    async with Time() as time:
        probe = Probe(answering(Reply(429, b"", {"retry-after": "2"}), GOOD))
        async with gateway(probe, time=time, events=events) as door:
            await door.ask(ask_for("x"))
    assert [event.kind for event in events] == ["refused", "paused", "retry", "answered"]


# -- money --------------------------------------------------------------------------------------------------------


async def test_an_unknown_price_is_asked_for() -> None:
    with pytest.raises(InputError, match=r"teachers\.main\.price") as caught:
        gateway(Probe(), price=None)
    assert "unknown_price: tokens_only" in str(caught.value)
    with pytest.raises(InputError, match="5 USD could not be kept"):
        gateway(Probe(), price=None, budget={"usd": 5, "unknown_price": "tokens_only"})
    async with gateway(Probe(), price=None, budget={"tokens": 10_000, "unknown_price": "tokens_only"}) as door:
        assert (await door.ask(ask_for("x"))).cost == 0
        assert not door.price_known("main")


@settings(max_examples=15, deadline=None)
@given(
    st.integers(1_000, 20_000),
    st.lists(st.sampled_from(["good", "good", "good", "500", "timeout", "html", "429"]), min_size=1, max_size=40),
    st.integers(1, 20),
    st.lists(st.integers(1, 60), min_size=1, max_size=3),
)
def test_a_cap_is_never_passed_by_whatever_the_provider_may_bill_over_sessions(
    cap: int, script: list[str], ceiling: int, sessions: list[int]
) -> None:
    """The provider bills every attempt that it may have worked on, as dearly as the request allows."""
    store = MemoryStore()
    billed = 0
    attempts = 0

    async def behave(probe: Probe, n: int) -> Reply:
        nonlocal billed, attempts
        attempts += 1
        what = script[attempts % len(script)]
        given_tokens = len(probe.wires[-1]["messages"][-1]["content"])
        if what in ("good", "timeout", "html"):
            billed += given_tokens + 20
        await asyncio.sleep(0)
        if what == "timeout":
            raise lost(FailureClass.TIMEOUT)
        if what == "500":
            return Reply(500, b"")
        if what == "429":
            return Reply(429, b"")
        return Reply(200, body("y", given=given_tokens, made=20) if what == "good" else b"<html>")

    async def session(number: int, rows: int) -> None:
        async with Time() as time:
            budget = {"tokens": cap}
            async with gateway(Probe(behave), store, time=time, budget=budget, max_concurrency=ceiling) as door:
                asks = (door.ask(ask_for(f"{number} {n} " + "x" * (n % 50))) for n in range(rows))
                for end in await asyncio.gather(*asks, return_exceptions=True):
                    if isinstance(end, BaseException):
                        assert isinstance(end, TeacherError | Halted | RunError), end
                assert door._account.purse.reserved == Amount()
        assert store.exposed.get("r", Amount()) == Amount()

    for number, rows in enumerate(sessions):
        asyncio.run(session(number, rows))
    assert billed <= cap


async def test_a_budget_stops_with_figures_and_a_higher_one_goes_on(tmp_path: Path) -> None:
    with SqliteStore.open(tmp_path / "answers.sqlite") as store:
        probe = Probe()
        asked = 0
        async with gateway(probe, store, budget={"usd": "0.001"}) as door:
            with pytest.raises(BudgetReached, match=r"cap 0\.001 USD, spent"):
                for asked in range(1000):
                    await door.ask(ask_for(f"{asked}"))
            spent = door.spent
            assert Decimal("0.0005") < spent <= Decimal("0.001")
        async with gateway(probe, store, budget={"usd": "0.001"}) as door:
            assert door.spent == spent
            with pytest.raises(BudgetReached):
                await door.ask(ask_for("another"))
        async with gateway(probe, store, budget={"usd": "0.002"}) as door:
            await door.ask(ask_for(f"{asked}"))


async def test_hours_end_a_session() -> None:
    async with Time() as time:

        async def slow(probe: Probe, n: int) -> Reply:
            await time.sleep(600)
            return GOOD

        async with gateway(Probe(slow), time=time, budget={"hours": 1}, max_concurrency=1) as door:
            done = 0
            with pytest.raises(BudgetReached, match="1 hours"):
                for n in range(100):
                    await door.ask(ask_for(f"{n}"))
                    done += 1
            assert done == 6


async def test_a_provider_that_bills_more_than_the_bound_is_reserved_for_from_then_on() -> None:
    probe = Probe(answering(Reply(200, body("x", given=2000, made=100))))
    async with gateway(probe, budget={"tokens": 20_000}) as door:
        with pytest.raises(BudgetReached):
            for n in range(100):
                await door.ask(ask_for(f"{n}"))
        assert door.spent_tokens <= 20_000
