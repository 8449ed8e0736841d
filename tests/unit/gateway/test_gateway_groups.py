"""Several teachers under one name: who answers, who answers in its place, and what a replay gives."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import pytest
from gateway_doubles import Behaviour, MemoryStore, Probe, Time, body
from hypothesis import given, settings
from hypothesis import strategies as st

from distill.errors import FailureClass, Halted, RunError, TeacherError
from distill.gateway import Event, Gateway
from distill.gateway.budget import Amount
from distill.gateway.routing import Route
from distill.recipe import Budget, TeacherConfig, TeacherGroup
from distill.teachers import Message, Reply, Request, SamplingParams

PRICE = {"input": "1", "output": "2"}


def group(**fields: Any) -> TeacherGroup:
    return TeacherGroup.model_validate(fields)


AB = group(share={"a": 0.7, "b": 0.3})
A_THEN_B = group(share={"a": 1}, fallback=["b"])


class House:
    """A gateway with probes for teachers, and a clock of its own. `say(status)` sets what a teacher answers."""

    def __init__(self, time: Time, store: MemoryStore | None = None, **groups: TeacherGroup) -> None:
        self.time = time
        self.store = store or MemoryStore()
        self.groups = groups or {"main": AB}
        self.events: list[Event] = []
        self.probes = {name: Probe(self._behave(name), model=f"model-{name}") for name in ("a", "b", "c")}
        self.replies: dict[str, Reply | TeacherError | None] = {}
        self.latency = dict.fromkeys(self.probes, 0.5)
        self.configs: dict[str, dict[str, Any]] = {name: {} for name in self.probes}

    def _behave(self, name: str) -> Behaviour:
        async def behave(probe: Probe, n: int) -> Reply:
            wire = probe.wires[-1]
            await self.time.sleep(self.latency[name])
            reply = self.replies.get(name)
            if isinstance(reply, TeacherError):
                raise TeacherError(reply.failure, reply.message)
            return reply or Reply(200, body(f"{name}: {wire['messages'][-1]['content']}"))

        return behave

    def open(self, *, budget: Mapping[str, Any] | None = None, wall: Callable[[], float] | None = None) -> Gateway:
        configs = {
            name: TeacherConfig.model_validate({"model": f"model-{name}", "price": PRICE, **self.configs[name]})
            for name in self.probes
        }
        return Gateway(
            self.probes,
            configs,
            self.store,
            run="r",
            budget=Budget.model_validate(budget or {}),
            clock=self.time.clock,
            sleep=self.time.sleep,
            wall=wall or (lambda: 1.8e9 + self.time.now),
            random=lambda: random.Random(1),
            on_event=self.events.append,
            groups=self.groups,
        )

    def sent(self) -> dict[str, int]:
        return {name: probe.sent for name, probe in self.probes.items()}

    def told(self, kind: str) -> list[str]:
        return [event.teacher for event in self.events if event.kind == kind]


def question(place: int, *, teacher: str = "main", **fields: Any) -> Request:
    return Request(teacher, (Message("user", f"question {place}"),), SamplingParams(max_tokens=20), **fields)


async def ask_all(door: Gateway, places: range, *, teacher: str = "main", at_once: int = 32) -> list[str]:
    """Who answered each."""
    who: dict[int, str] = {}
    left = iter(places)

    async def worker() -> None:
        for place in left:
            answer = await door.ask(question(place, teacher=teacher), sample=place, place=place)
            assert answer.text == f"{answer.teacher}: question {place}"
            who[place] = answer.teacher

    async with asyncio.TaskGroup() as tasks:
        for _ in range(at_once):
            tasks.create_task(worker())
    return [who[place] for place in places]


# -- shares -------------------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=30)
@given(
    st.dictionaries(st.sampled_from("abcde"), st.floats(0.05, 1), min_size=2),
    st.integers(0, 20),
    st.integers(0, 9),
    st.integers(0, 10**9),
    st.integers(1, 7),
)
def test_shares_hold_after_any_number_of_slots(
    share: dict[str, float], number: int, seed: int, begin: int, stride: int
) -> None:
    route = Route("main", group(share=share), number=number, seed=seed)
    total, seen = sum(share.values()), Counter[str]()
    for n in range(400):
        seen[route.order(begin + n * stride)[0]] += 1
        if n in (9, 99, 399):
            worst = max(abs(seen[name] - part / total * (n + 1)) for name, part in share.items())
            assert worst <= 3 + (0.02 if stride == 1 else 0.1) * (n + 1)


def test_a_slot_belongs_to_the_same_teacher_for_ever() -> None:
    route = Route("main", AB)
    assert "".join(route.order(n)[0] for n in range(40)) == "".join(Route("main", AB).order(n)[0] for n in range(40))
    assert "".join(route.order(n)[0] for n in range(20)) == ORDER
    assert "".join(Route("main", AB, seed=1).order(n)[0] for n in range(20)) != ORDER


ORDER = "baaaababaababaaaabab"


def test_groups_of_one_recipe_do_not_march_in_step() -> None:
    one, other = Route("one", AB, number=0), Route("other", AB, number=1)
    pairs = Counter((one.order(n)[0], other.order(n)[0]) for n in range(1000))
    assert abs(pairs["a", "a"] - 490) < 40
    assert abs(pairs["b", "b"] - 90) < 40


async def test_everyone_gets_its_share_with_its_own_sampling() -> None:
    async with Time() as time:
        house = House(time)
        each = {"a": SamplingParams(max_tokens=11), "b": SamplingParams(max_tokens=22)}
        async with house.open() as door, asyncio.TaskGroup() as tasks:
            for n in range(100):
                tasks.create_task(door.ask(question(n, each=each), sample=n, place=n))
        assert abs(house.sent()["a"] - 70) <= 2
        assert {wire["max_tokens"] for wire in house.probes["a"].wires} == {11}
        assert {wire["max_tokens"] for wire in house.probes["b"].wires} == {22}


# -- one for another ----------------------------------------------------------------------------------------------

DOWN: list[Any] = [Reply(500, b"no"), TeacherError(FailureClass.CONNECTION, "gone")]


@pytest.mark.parametrize("trouble", DOWN)
async def test_a_teacher_that_goes_down_and_comes_back(trouble: Reply | TeacherError) -> None:
    async with Time() as time:
        house = House(time, main=A_THEN_B)

        async def weather() -> None:
            await time.sleep(20)
            house.replies["a"] = trouble
            await time.sleep(60)
            house.replies["a"] = None

        async with house.open() as door, asyncio.TaskGroup() as tasks:
            tasks.create_task(weather())
            who = await ask_all(door, range(8000))
            stats = door.stats
            assert stats["a"].failed == stats["b"].failed == 0
            assert stats["a"].parked >= 1
            assert stats["a"].moved == stats["b"].answered
            assert 50 <= stats["a"].parked_s <= 115
            assert not stats["a"].state
        assert 1000 <= who.count("b") <= 6600
        assert set(who[:600]) == {"a"} == set(who[-600:])
        # While it was down it was asked real questions, one at a time, ever more seldom.
        assert stats["a"].sent - stats["a"].answered <= 32 + 8 + 20
        assert house.told("parked") == ["a"] * stats["a"].parked
        assert house.told("opened") == ["a"] * stats["a"].parked
    assert not house.told("halted")


async def test_a_teacher_alone_waits_through_an_outage_and_loses_nothing() -> None:
    async with Time() as time:
        house = House(time, main=group(share={"a": 1}))

        async def weather() -> None:
            await time.sleep(20)
            house.replies["a"] = Reply(500, b"no")
            await time.sleep(300)
            house.replies["a"] = None

        async with house.open() as door, asyncio.TaskGroup() as tasks:
            tasks.create_task(weather())
            who = await ask_all(door, range(4000), teacher="a")
            assert door.stats["a"].failed == 0
        assert who == ["a"] * 4000
        assert house.probes["a"].sent - 4000 <= 32 + 20
    assert 300 <= time.now <= 500


async def test_when_the_whole_group_is_down_its_slots_wait_for_whoever_is_back_first() -> None:
    async with Time() as time:
        house = House(time)

        async def weather() -> None:
            await time.sleep(20)
            house.replies = {"a": Reply(503, b""), "b": Reply(503, b"")}
            await time.sleep(60)
            house.replies["b"] = None
            await time.sleep(10)
            house.replies["a"] = None

        async with house.open() as door, asyncio.TaskGroup() as tasks:
            tasks.create_task(weather())
            who = await ask_all(door, range(9000))
            assert door.stats["a"].failed == door.stats["b"].failed == 0
        share = who[-1000:].count("a") / 1000
        assert 0.65 < share < 0.75
        assert who.count("b") > 0.3 * len(who)


async def test_a_teacher_that_becomes_far_slower_is_passed_over() -> None:
    async with Time() as time:
        house = House(time, main=A_THEN_B)

        async def weather() -> None:
            await time.sleep(20)
            house.latency["a"] = 40.0
            await time.sleep(100)
            house.latency["a"] = 0.5

        async with house.open() as door, asyncio.TaskGroup() as tasks:
            tasks.create_task(weather())
            who = await ask_all(door, range(16_000))
            assert "a" in house.told("parked")
        assert who.count("b") > 2000
        assert set(who[-500:]) == {"a"}


# -- who is of no use ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("status", "said"), [(401, "refused the key"), (402, "no quota"), (404, "is not there")])
async def test_one_without_key_money_or_model_is_given_up_and_the_others_go_on(status: int, said: str) -> None:
    async with Time() as time:
        house = House(time)
        house.replies["a"] = Reply(status, b"no")
        async with house.open() as door:
            assert set(await ask_all(door, range(200))) == {"b"}
            assert said in door.stats["a"].state
        assert house.probes["a"].sent <= 32
    assert house.told("parked") == ["a"]


async def test_the_run_ends_when_nobody_can_answer_and_says_why_of_each() -> None:
    async with Time() as time:
        house = House(time)
        house.replies = {"a": Reply(401, b""), "b": Reply(402, b"")}
        async with house.open() as door:
            with pytest.raises(Halted, match=r"no teacher of group main.*refused the key") as caught:
                await ask_one(door, 0)
            assert "no quota left" in str(caught.value)
        house = House(time)
        house.replies = {"a": Reply(401, b""), "b": Reply(401, b"")}
        async with house.open() as door:
            with pytest.raises(RunError, match="no teacher of group main"):
                await ask_one(door, 0)


async def ask_one(door: Gateway, place: int) -> None:
    await door.ask(question(place), sample=place, place=place)


async def test_one_that_is_asked_by_its_own_name_too_ends_the_run() -> None:
    async with Time() as time:
        house = House(time)
        house.replies["a"] = Reply(401, b"no")
        async with house.open() as door:
            assert set(await ask_all(door, range(20))) == {"b"}
            with pytest.raises(RunError, match="refused the key"):
                await door.ask(question(0, teacher="a"))


async def test_a_group_that_is_down_for_too_long_ends_the_run() -> None:
    async with Time() as time:
        house = House(time)
        async with house.open() as door:
            await ask_all(door, range(200))
            house.replies = {"a": Reply(500, b"broken"), "b": TeacherError(FailureClass.CONNECTION, "gone")}
            began = time.now
            ends = await asyncio.gather(*(ask_one(door, n) for n in range(1000, 1040)), return_exceptions=True)
            stops = [end for end in ends if isinstance(end, Halted)]
            assert len(stops) >= 30
            assert "a (model-a)" in str(stops[0])
            assert "b (model-b)" in str(stops[0])
            assert 600 <= time.now - began <= 1800


async def test_when_the_last_two_are_given_up_together_everybody_learns_the_whole_reason() -> None:
    async with Time() as time:
        house = House(time)
        house.replies["b"] = TeacherError(FailureClass.QUOTA, "empty")
        parked = asyncio.Event()

        async def refuse(probe: Probe, n: int) -> Reply:
            await parked.wait()  # b has just been given up, and those who asked it have not looked around yet
            return Reply(401, b"no")

        class Events(list[Event]):
            def append(self, event: Event) -> None:
                if event.kind == "parked" and event.teacher == "b":
                    parked.set()
                super().append(event)

        house.events, house.probes["a"] = Events(), Probe(refuse, model="model-a")
        async with house.open() as door:
            ends = await asyncio.gather(*(ask_one(door, n) for n in range(40)), return_exceptions=True)
        assert {type(end) for end in ends} <= {Halted, RunError}
        assert {"no teacher of group main can answer" in str(end) for end in ends} == {True}, {str(end) for end in ends}


async def test_a_refusal_of_the_question_is_a_fate_and_not_put_to_others() -> None:
    async with Time() as time:
        house = House(time, main=A_THEN_B)
        async with house.open() as door:
            await ask_one(door, 0)
            house.replies["a"] = Reply(451, b"{}")
            with pytest.raises(TeacherError) as caught:
                await ask_one(door, 1)
            assert (caught.value.failure, caught.value.teacher) == (FailureClass.FILTERED, "a")
        assert house.sent()["b"] == 0


# -- replay -------------------------------------------------------------------------------------------------------


async def test_a_replay_gives_the_answers_that_were_given_whoever_is_up() -> None:
    async with Time() as time:
        store = MemoryStore()
        house = House(time, store)
        house.replies["a"] = Reply(500, b"no")
        async with house.open() as door:
            first = await ask_all(door, range(300))
        again = House(time, store)
        async with again.open() as door:
            assert await ask_all(door, range(300)) == first
            assert again.sent() == {"a": 0, "b": 0, "c": 0}
            beyond = await ask_all(door, range(300, 400))
        assert "a" in beyond
        assert set(first) == {"b"}


async def test_an_answer_is_better_than_a_refusal_that_stands_before_it() -> None:
    async with Time() as time:
        house = House(time, main=group(share={"a": 1}, fallback=["b"]), other=group(share={"b": 1}))
        async with house.open() as door:
            await ask_one(door, 0)
            house.replies["a"] = Reply(451, b"{}")
            with pytest.raises(TeacherError):
                await ask_one(door, 1)
            await door.ask(question(1, teacher="b"), sample=1)
            answer = await door.ask(question(1), sample=1, place=1)
            assert answer.teacher == "b"


# -- context ------------------------------------------------------------------------------------------------------


async def test_a_prompt_too_long_for_its_own_teacher_goes_to_a_larger_one_and_else_costs_nothing() -> None:
    async with Time() as time:
        house = House(time, main=A_THEN_B)
        house.configs["a"]["context_tokens"], house.configs["b"]["context_tokens"] = 1000, 4000

        def long(words: int) -> Request:
            return Request("main", (Message("user", "word " * words),), SamplingParams(max_tokens=100))

        async with house.open() as door:
            assert (await door.ask(long(300), place=0)).teacher == "a"
            assert (await door.ask(long(2000), place=0)).teacher == "b"
            with pytest.raises(TeacherError) as caught:
                await door.ask(long(6000), place=0)
        assert caught.value.failure is FailureClass.CONTEXT
        assert "1,000 tokens by context_tokens" in caught.value.message
        assert "max_tokens (100)" in caught.value.message
        assert house.sent() == {"a": 1, "b": 1, "c": 0}
        assert door.spent_tokens == 30


# -- quotas by the day --------------------------------------------------------------------------------------------


async def test_a_used_up_day_moves_to_others_and_counts_over_sessions() -> None:
    async with Time() as time:
        store = MemoryStore()
        who: list[str] = []
        for session in range(2):
            house = House(time, store, main=A_THEN_B)
            house.configs["a"]["limits"] = {"requests_per_day": 60}
            async with house.open() as door:
                who += await ask_all(door, range(session * 50, session * 50 + 50))
        assert Counter(who) == {"a": 60, "b": 40}
        assert house.probes["a"].sent == 10
        assert "quota" in door.stats["a"].state


async def test_alone_the_run_waits_within_its_hours_and_else_says_when_to_come_back() -> None:
    limits = {"requests_per_day": 30, "day_starts_at": "00:00"}
    async with Time() as time:
        midnight = 86_400 * 20_000.0
        wall = lambda: midnight - 3 * 3600 + time.now  # noqa: E731
        house = House(time, main=group(share={"a": 1}))
        house.configs["a"]["limits"] = limits
        async with house.open(budget={"hours": 4}, wall=wall) as door:
            await ask_all(door, range(50))
        assert 3 * 3600 <= time.now < 3.1 * 3600
        house = House(time, main=group(share={"a": 1}))
        house.configs["a"]["limits"] = limits
        async with house.open(wall=wall) as door:
            with pytest.raises(BaseExceptionGroup) as caught:
                await ask_all(door, range(50))
        (end,) = {str(error) for error in caught.value.exceptions}
        assert all(isinstance(error, Halted) for error in caught.value.exceptions)
        assert "30 of 30 requests" in end
        assert "after 2024-10-0" in end


async def test_a_quota_smaller_than_the_line_is_used_to_its_end() -> None:
    class Disk(MemoryStore):
        async def expose(self, run: str, amount: Amount) -> None:
            await asyncio.sleep(0.01)  # as a disk does: requests wait for it until the amount under way is written
            await super().expose(run, amount)

    async with Time() as time:
        house = House(time, Disk(), main=group(share={"a": 1}))
        house.configs["a"] |= {"limits": {"requests_per_day": 5}, "price": {"input": 1.0, "output": 1.0}}
        async with house.open(budget={"usd": 5}) as door:
            with pytest.raises(BaseExceptionGroup):
                await ask_all(door, range(50))
        assert house.sent()["a"] == 5


async def test_a_provider_that_names_the_reset_of_its_day_is_parked_until_then() -> None:
    async with Time() as time:
        house = House(time, main=A_THEN_B)
        async with house.open() as door:
            await ask_all(door, range(100))
            house.replies["a"] = Reply(429, b"", {"retry-after": "7200"})
            assert set(await ask_all(door, range(100, 2000))) == {"b"}
            assert house.probes["a"].sent <= 100 + 32
            house.replies["a"] = None
            await time.sleep(7300)
            assert set((await ask_all(door, range(2000, 2500)))[100:]) == {"a"}


# -- both at once -------------------------------------------------------------------------------------------------


async def test_who_joins_a_call_that_moves_on_still_gets_its_own_teacher() -> None:
    async with Time() as time:
        house = House(time, main=A_THEN_B)
        async with house.open() as door:
            await ask_all(door, range(50))
            house.replies["a"] = Reply(500, b"no")

            async def recover() -> None:
                await time.sleep(30)
                house.replies["a"] = None

            waiting: list[Awaitable[Any]] = [door.ask(question(n), sample=n, place=n) for n in range(100, 140)]
            joined = [door.ask(question(n, teacher="a"), sample=n) for n in range(100, 140)]
            *answers, _ = await asyncio.gather(*waiting, *joined, recover())
        assert {answer.teacher for answer in answers[40:]} == {"a"}
        assert "b" in {answer.teacher for answer in answers[:40]}
