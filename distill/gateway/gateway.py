"""The one door to every teacher.

`ask` looks in the answer store, joins a call already under way for the same question, or makes one (`Caller`): through
the teacher's line, with the worst case reserved, again after failures that pass. An answer is on disk before anybody
sees it. The teachers of a group are asked one in place of another (`ask_around`). Calls run as tasks of the gateway,
not of those who ask: an asker who is cancelled leaves the call running, so that what was paid for is stored.
"""

from __future__ import annotations

import asyncio
import contextlib
import random as random_module
import time
from collections.abc import Awaitable, Callable, Mapping
from decimal import Decimal
from functools import partial
from types import TracebackType

from distill.errors import BudgetReached, DistillError, Halted, InputError, RunError, TeacherError
from distill.gateway.account import Account
from distill.gateway.around import ask_around, look_around
from distill.gateway.batch import BatchDesk, Batching
from distill.gateway.call import Call, Elsewhere
from distill.gateway.calls import Caller, read
from distill.gateway.desk import Desk, check_prices
from distill.gateway.ending import Ending, fresh
from distill.gateway.line.daily import Daily
from distill.gateway.look import Look, Shelf
from distill.gateway.routing import Routes, Way
from distill.gateway.stats import Event, EventKind, TeacherStats
from distill.gateway.store import AnswerStore
from distill.recipe import Budget, TeacherConfig, TeacherGroup
from distill.teachers import Answer, Request, Teacher

__all__ = ["Gateway"]

_FLUSH_S = 2.0
_PATIENCE_S = 10.0
"""How long calls under way are awaited when a run is interrupted or broken off."""


class Gateway:
    """Use it as `async with Gateway(...) as gateway:`; one gateway per run at a time.

    Args:
        teachers, configs: by the recipe's names.
        store: where answers are kept; stays open, it belongs to the caller.
        run: who pays; budgets hold over all sessions with the same name.
        clock, sleep, random: time in seconds, how to wait, and where the draws of a teacher's jitter come from.
        wall: Unix time, for records and for quotas by the day.
        on_event: told of everything that happens; must be quick.
        batching: how the teachers in it are asked by batch; without it everybody is asked online.
        groups: by the recipe's names, which may be asked like teachers.
        seed: the recipe's; shares of groups begin somewhere else with another one.
        apart: which runs have quotas by the day of their own, so that what they use is not counted here.

    Raises:
        InputError: a price is not known and the budget needs it.
    """

    def __init__(
        self,
        teachers: Mapping[str, Teacher],
        configs: Mapping[str, TeacherConfig],
        store: AnswerStore,
        *,
        run: str,
        budget: Budget,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        wall: Callable[[], float] = time.time,
        random: Callable[[], random_module.Random] = random_module.Random,
        on_event: Callable[[Event], None] | None = None,
        batching: Batching | None = None,
        groups: Mapping[str, TeacherGroup] | None = None,
        seed: int = 0,
        apart: Callable[[str], bool] = lambda run: False,
    ) -> None:
        self._desks = {
            name: Desk(name, teacher, configs[name], clock=clock, sleep=sleep, rng=random())
            for name, teacher in teachers.items()
        }
        check_prices(list(self._desks.values()), budget)
        self._routes = Routes(groups or {}, self._desks, seed)
        for desk in self._desks.values():
            desk.daily = Daily.of(desk.config.limits, desk.teacher, store, clock=clock, wall=wall, apart=apart)
        self._store = store
        self._shelf = Shelf(store, run)
        self._run = run
        self._clock = clock
        self._budget = budget
        self._sleep = sleep
        self._on_event = on_event
        self._ending = Ending()
        self._ending.on_soft, self._ending.on_hard = self._dismiss, self._break
        self._account = Account(store, run, budget, self._ending)
        self._caller = Caller(
            store,
            self._account,
            self._ending,
            run=run,
            clock=clock,
            wall=wall,
            changed=self._routes.changed,
            tell=None if on_event is None else self._tell,
        )
        self._batches = (
            {
                name: BatchDesk(
                    self._desks[name],
                    store,
                    self._account,
                    self._ending,
                    batching,
                    run=run,
                    online=self._caller,
                    idle=self._all_wait,
                    clock=clock,
                    sleep=sleep,
                    tell=None if on_event is None else self._tell,
                )
                for name in batching.teachers
            }
            if batching is not None
            else {}
        )
        self._calls: dict[str, Call] = {}
        self._idle = asyncio.Event()
        self._idle.set()
        self._group = asyncio.TaskGroup()
        self._helpers: list[asyncio.Task[None]] = []
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._urgent = asyncio.Event()
        self._announced = False

    async def __aenter__(self) -> Gateway:
        if self._account.recovered.tokens:
            at_risk = self._account.recovered
            self._tell("lost", "", f"a killed session left calls worth at most {at_risk.usd} USD under way", 0.0)
        try:
            for desk in self._desks.values():
                try:
                    await desk.teacher.start()
                except TeacherError as error:
                    raise RunError(f"teacher {desk.name} could not be started: {error.message}") from None
            for batches in self._batches.values():
                await batches.start()
            await self._group.__aenter__()
        except BaseException:
            await self._close_teachers()
            raise
        self._helpers = [self._group.create_task(desk.lane.pace()) for desk in self._desks.values()]
        self._helpers += [self._group.create_task(batches.work()) for batches in self._batches.values()]
        self._helpers.append(self._group.create_task(self._watch_patience()))
        if self._budget.hours is not None:
            self._caller.failing.deadline = self._clock() + self._budget.hours * 3600
            self._helpers.append(self._group.create_task(self._watch_hours(self._budget.hours)))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._announced = True  # closing is no news
        self._ending.end(Halted("the gateway is closed"))
        try:
            # What is under way is paid for, so it is waited for (its timeout bounds each attempt, and patience does
            # after an interruption), unless somebody insists on leaving at once.
            if kind is None or issubclass(kind, Exception):
                kind = error = trace = None
                await self._idle.wait()
        except BaseException as insisted:
            kind, error = type(insisted), insisted
            raise
        finally:
            for helper in self._helpers:
                helper.cancel()
            try:
                await self._group.__aexit__(kind, error, trace)
            finally:
                await self._close_teachers()
                await self._leave_store()

    async def ask(self, request: Request, *, sample: int = 0, place: int | None = None) -> Answer:
        """The teacher's answer to `request`; different samples are independent draws.

        An answer that is stored comes back without suspending. `place` is the slot's in its plan: it decides who of a
        group is asked first; left out, the question itself does.

        Raises:
            TeacherError: the request failed for good; `stored` when it always will.
            AnswerError: the answer holds text that no file can hold.
            Halted, RunError: the run is stopping.
        """
        if self._ending.hard is not None:
            raise fresh(self._ending.hard)
        desk = self._desks.get(request.teacher)
        if desk is None:
            return await self._ask_group(request, sample, place)
        look = self._shelf.look(desk, request, sample)
        if look.answer is not None:
            return look.answer
        while True:
            try:
                return await self._fetch(look, None)
            except Elsewhere:  # the call under way was a group's, and its question has moved on
                continue

    async def _ask_group(self, request: Request, sample: int, place: int | None) -> Answer:
        route = self._routes.find(request.teacher)
        if route is None:
            raise InputError(f"no teacher is named {request.teacher!r}; there are {', '.join(self._desks)}")
        desks = self._routes.desks(route, request, place)
        answer, looks, failure = look_around(
            [partial(self._shelf.look, desk, request.put_to(desk.name), sample) for desk in desks]
        )
        if answer is None:
            answer = await ask_around(
                route.name,
                looks,
                failure,
                self._fetch,
                clock=self._clock,
                patience=self._caller.failing.may_wait,
                ended=self._ending.check,
            )
            if answer.teacher != desks[0].name:
                desks[0].stats.moved += 1
        return answer

    async def _fetch(self, look: Look, way: Way | None) -> Answer:
        """The answer of a call: the one under way for the question, or a new one."""
        call = self._calls.get(look.key)
        if call is None:
            self._ending.check()
            future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
            desk, request, wire, key, size, sample, _, stale = look
            call = Call(desk, request, wire, key, sample, size, future, replace=stale, way=way)
            self._calls[key] = call
            self._idle.clear()
            self._tasks[key] = self._group.create_task(self._carry_out(call))
        else:
            look.desk.stats.shared += 1
        return await asyncio.shield(call.future)

    def drain(self) -> None:
        """Send nothing more: asks that would send raise `Halted`; calls under way are finished, stored, delivered.
        Those that take longer than some seconds are given up."""
        self._urgent.set()
        self._ending.end(Halted("interrupted", hint="Everything paid so far is kept. Run the same command to go on."))

    def seal(self) -> None:
        """Answer from the store alone: asks that would send raise `Halted`, all others are answered to the end."""
        self._announced = True  # no news to anybody
        self._ending.end(Halted("not in the answer store"))

    async def quiesce(self, timeout: float | None = None) -> bool:  # noqa: ASYNC109 - says how long to be patient
        """Wait for the calls under way, at most `timeout` seconds; False when some are left."""
        try:
            async with asyncio.timeout(timeout):
                await self._idle.wait()
        except TimeoutError:
            return False
        return True

    @property
    def stats(self) -> Mapping[str, TeacherStats]:
        """Live counts by teacher."""
        for desk in self._desks.values():
            desk.stats.in_flight = desk.lane.concurrency.in_flight
            desk.stats.limit = desk.lane.concurrency.limit
            parking = desk.parking
            if parking.times:
                now = self._clock()
                desk.stats.state, desk.stats.parked = parking.state(now), parking.times
                desk.stats.parked_s = parking.parked_s(now)
        for name, batches in self._batches.items():
            self._desks[name].stats.in_flight += batches.waiting
        return {name: desk.stats for name, desk in self._desks.items()}

    @property
    def spent(self) -> Decimal:
        """USD this run paid for answers, over all its sessions."""
        return self._account.purse.spent.usd

    @property
    def spent_tokens(self) -> int:
        """Tokens of this run's answers, over all its sessions."""
        return self._account.purse.spent.tokens

    @property
    def unknown_cost(self) -> Decimal:
        """USD that this run's calls without an answer may have cost, at most, over all its sessions."""
        return self._account.purse.lost.usd

    def price_known(self, teacher: str) -> bool:
        """Whether the teacher's answers are counted in USD."""
        return self._desks[teacher].tariff is not None

    async def _carry_out(self, call: Call) -> None:
        """Runs as a task of the gateway; whatever happens ends in the call's future."""
        future = call.future
        try:
            carrier = self._batches.get(call.desk.name) or self._caller
            record, reading = await carrier.carry_out(call)
            if not future.done():
                reading = reading or read(call.desk, record.body, record.key)
                future.set_result(self._shelf.answer(call.desk, record, reading))
        except asyncio.CancelledError:
            future.cancel()
            raise
        except Exception as error:
            if not future.done():
                future.set_exception(error)
                future.exception()  # whoever still waits sees it; nobody waiting is no fault
        finally:
            del self._calls[call.key], self._tasks[call.key]
            if not self._calls:
                self._idle.set()

    # -- the end -----------------------------------------------------------------------------------------------

    def _dismiss(self, error: DistillError) -> None:
        """Send everybody away who has not sent yet."""
        self._account.purse.dismiss()
        for desk in self._desks.values():
            desk.lane.dismiss()
        for batches in self._batches.values():
            batches.dismiss()
        if not self._announced:
            self._announced = True
            self._tell("halted", "", error.message, 0.0)

    def _break(self, error: DistillError) -> None:
        """Tell everybody who waits. Calls under way go on and are stored."""
        self._urgent.set()
        for call in self._calls.values():
            if not call.future.done():
                call.future.set_exception(fresh(error))
                call.future.exception()

    async def _watch_patience(self) -> None:
        """Give up what is under way when it takes too long to end; it may have been billed, and counts as lost."""
        await self._urgent.wait()
        await self._sleep(_PATIENCE_S)
        self._ending.stop(self._ending.soft or Halted("interrupted"))
        for task in list(self._tasks.values()):
            task.cancel()

    async def _watch_hours(self, hours: float) -> None:
        await self._sleep(hours * 3600)
        self._ending.end(
            BudgetReached(
                f"the budget is reached: cap {hours:g} hours of one session",
                hint="Everything paid so far is kept. Run the same command to go on.",
            )
        )

    def _all_wait(self) -> tuple[bool, bool, int]:
        """Whether every call waits for a batch, whether all those are submitted, and a figure that changes with
        everything that is answered."""
        waiting = sum(batches.waiting for batches in self._batches.values())
        sent = all(batches.sent for batches in self._batches.values())
        stats = [desk.stats for desk in self._desks.values()]
        answers = sum(each.replayed + each.reused + each.answered for each in stats)
        return len(self._calls) == waiting, sent, answers + waiting

    async def _close_teachers(self) -> None:
        for batches in self._batches.values():
            with contextlib.suppress(DistillError, OSError):
                await batches.close()
        for desk in self._desks.values():
            with contextlib.suppress(DistillError, OSError):
                await desk.teacher.close()

    async def _leave_store(self) -> None:
        """Give the store a last chance to write, and say what it could not."""
        if self._ending.hard is None:
            for desk in self._desks.values():
                await self._caller.prove(desk)
        self._account.close()
        unsaved = await self._store.flush(_FLUSH_S)
        if unsaved:
            reason = self._ending.hard.message if self._ending.hard is not None else "the answer store refuses them"
            raise RunError(
                f"{unsaved} paid answers could not be stored: {reason}",
                hint="Make room and run the same command again; these answers will be asked for (and paid) again.",
            )

    def _tell(self, kind: EventKind, teacher: str, message: str, seconds: float) -> None:
        if self._on_event is not None:
            self._on_event(Event(kind, teacher, message, seconds))
