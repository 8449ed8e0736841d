"""Where questions for one teacher gather, and where they wait for their batches.

A batch leaves when it is full by the provider's limits, when nothing else of the run is under way (everybody who asks
waits here), or when its first question has waited `linger_s`. Its worst case is set aside before it is written down,
so a cap holds over batches too; and what an earlier session submitted is set aside again when this one begins.

When the run ends, those who wait are sent away and the batches go on at the provider: the next session of any run with
the same account and model takes them up, and whoever asks for one of their answers waits for it instead of paying
again.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Awaitable, Callable, Iterable

from distill.errors import BudgetReached, DistillError, Halted, RunError, TeacherError
from distill.gateway.account import Account
from distill.gateway.batch.batching import Asked, Batching, Outcome, less
from distill.gateway.batch.courier import Courier
from distill.gateway.batch.harvest import Harvest
from distill.gateway.batch.ledger import Entry, Member
from distill.gateway.batch.pace import Pace
from distill.gateway.budget import Amount
from distill.gateway.calls import Call, Caller
from distill.gateway.desk import Desk
from distill.gateway.ending import Ending, fresh
from distill.gateway.stats import EventKind
from distill.gateway.store import AnswerStore
from distill.teachers import Reply

__all__ = ["BatchDesk"]

_PATIENCE_S = 10.0


class _Online(Exception):
    """Not by batch: ask online."""


class _Anew(Exception):
    """Ask once more, as if for the first time."""

    def __init__(self, attempts: int) -> None:
        self.attempts = attempts


class BatchDesk:
    """One teacher's batches. `carry_out` is to the gateway what a `Caller`'s is; `work` runs beside it until cancelled.

    Args:
        online: carries out what does not go by batch.
        idle: whether everybody who asks, of all teachers, waits for batches; whether all that waits is submitted; and
            a figure that changes with every answer, so that two equal ones tell that nothing happened in between.
    """

    def __init__(
        self,
        desk: Desk,
        store: AnswerStore,
        account: Account,
        ending: Ending,
        batching: Batching,
        *,
        run: str,
        online: Caller,
        idle: Callable[[], tuple[bool, bool, int]],
        clock: Callable[[], float],
        sleep: Callable[[float], Awaitable[None]],
        tell: Callable[[EventKind, str, str, float], None] | None,
    ) -> None:
        self._desk = desk
        self._store = store
        self._account = account
        self._ending = ending
        self._batching = batching
        self._ledger = batching.ledger
        self._run = run
        self._online = online
        self._idle = idle
        self._clock = clock
        self._sleep = sleep
        self._tell = tell
        self._teacher = batching.teachers[desk.name]
        self._courier = Courier(desk, batching, ending, clock=clock, sleep=sleep)
        self._harvest = Harvest(desk, store, account, batching, run=run, say=self._say)
        self._pace = Pace(desk.config, self._teacher, clock())
        self._asked: dict[str, Asked] = {}
        self._gathered: list[Asked] = []
        self._since = 0.0
        self._open: dict[str, Entry] = {}
        self._broken_off: set[str] = set()
        self._taken_up: list[tuple[Entry, dict[str, Asked]]] = []
        self._submitting: set[asyncio.Task[None]] = set()
        self._bringing_in: set[asyncio.Task[None]] = set()
        self.waiting = 0
        """Calls that wait here."""

    @property
    def sent(self) -> bool:
        """Whether everything that waits here is submitted."""
        return not self._gathered and not self._submitting

    async def carry_out(self, call: Call) -> Outcome:
        """The answer of a batch, or an online one. Raises what `Caller.carry_out` raises."""
        self.waiting += 1
        attempts = 0
        try:
            while True:
                try:
                    return await self._wait(call, attempts)
                except _Anew as again:
                    attempts = again.attempts
        except _Online:
            pass
        finally:
            self.waiting -= 1
        return await self._online.carry_out(call)

    async def _wait(self, call: Call, attempts: int) -> Outcome:
        one = self._asked.get(call.key)
        if one is None:
            standing = None if call.replace else self._standing(call.key)
            if standing is not None:
                return standing
            if self._pace.online:
                raise _Online
            worst = less(self._desk.worst(call.request, call.size), self._desk.config.batch.discount)
            await self._reserve(worst)
            one = Asked(Member(call.key, call.sample, call.size, worst), self._run, held=True, attempts=attempts)
            self._asked[call.key] = one
            self._gather(one)
        one.wire, one.replace = call.wire, call.replace
        one.future = asyncio.get_running_loop().create_future()
        try:
            return await one.future
        finally:
            one.future = None

    def _standing(self, key: str) -> Outcome | None:
        """What came into the store after the gateway had looked: a result of a batch that nobody was waiting for."""
        record = self._store.get(key)
        if record is not None and not record.finish:
            failure = self._desk.teacher.failure(Reply(record.status, record.body))
            if failure is not None:
                failure.stored = True
                raise failure
        return None if record is None else (record, None)

    async def _reserve(self, worst: Amount) -> None:
        try:
            await self._account.purse.reserve(worst)
        except BudgetReached as error:
            self._ending.check()  # sent away because the run ends for another reason
            self._ending.end(error)
            raise fresh(error) from None
        try:
            self._ending.check()
        except BaseException:
            self._account.purse.release(worst)
            raise

    def _gather(self, one: Asked) -> None:
        if not self._gathered:
            self._since = self._clock()
        self._gathered.append(one)

    def dismiss(self) -> None:
        """Send everybody away who waits here; nothing more is submitted, and what is goes on at the provider."""
        gathered, self._gathered = self._gathered, []
        for one in gathered:
            self._done(one)
        reason = self._ending.hard or self._ending.soft
        for one in (*gathered, *self._asked.values()):
            if reason is not None and one.future is not None and not one.future.done():
                one.future.set_exception(fresh(reason))

    # -- beside those who ask ----------------------------------------------------------------------------------

    async def start(self) -> None:
        """Find the batches that earlier sessions left open; their worst cases are set aside again.

        Raises:
            RunError: another process looks after those of this run.
        """
        if not self._ledger.take(self._run):
            raise RunError(
                "another process is taking in the batches of this run",
                hint="Another run of this workspace took them up when it began. Wait until it ends.",
            )
        for entry in self._ledger.open_entries(self._teacher.account, self._desk.teacher.model):
            if not self._ledger.take(entry.run):  # a living process looks after it
                continue
            self._open[entry.ref] = entry
            asked: dict[str, Asked] = {}
            for member in self._ledger.members(entry.ref):
                held = entry.run == self._run and self._store.get(member.key) is None
                if held:
                    self._account.purse.hold(member.worst)
                self._asked[member.key] = asked[member.key] = Asked(member, entry.run, held)
            self._taken_up.append((entry, asked))
            self._say("batch", f"taken up: {entry.requests} requests, {entry.batch or 'perhaps not submitted'}")
        await self._teacher.start()

    async def close(self) -> None:
        """Close the connections; safe to call twice."""
        await self._teacher.close()

    async def work(self) -> None:
        """Submit what gathers and bring in what ends, until cancelled."""
        async with asyncio.TaskGroup() as group:
            for entry, asked in self._taken_up:
                self._begin(group, entry, asked)
            try:
                await self._watch(group)
            except asyncio.CancelledError:
                # The name that the provider gives a batch, and results that lie here already, are worth some seconds.
                if busy := self._submitting | self._bringing_in:
                    await asyncio.wait(busy, timeout=_PATIENCE_S)
                raise

    async def _watch(self, group: asyncio.TaskGroup) -> None:
        before: tuple[int, ...] = ()
        while True:
            await self._sleep(self._batching.tick_s)
            idle, all_sent, figure = self._idle()
            now = (len(self._gathered), len(self._open), len(self._submitting), figure)
            still, before = idle and now == before, now
            if self._ending.soft is not None:
                continue
            await self._go_online(still)
            while count := self._pace.leaving(self._gathered, self._since, self._clock(), still=still):
                batch, self._gathered = self._gathered[:count], self._gathered[count:]
                self._since = self._clock()
                task = group.create_task(self._send_off(batch, group))
                self._submitting.add(task)
                task.add_done_callback(self._submitting.discard)
            if self._batching.detach and still and all_sent and self._open:
                self._ending.stop(self._detached())

    async def _go_online(self, still: bool) -> None:
        """Break off the batches when nothing goes by batch any more, and ask online what goes by none."""
        if self._pace.no_time_left(self.waiting, self._clock()):
            for entry in list(self._open.values()):
                if entry.state == "submitted" and entry.ref not in self._broken_off:
                    self._broken_off.add(entry.ref)
                    self._say("batch", f"{entry.batch} is broken off, what is missing then is asked online")
                    try:
                        await self._courier.cancel(entry)
                    except TeacherError as error:
                        self._say("batch", f"{entry.batch} could not be broken off: {error.message}")
        few = still and not self._open and self._pace.too_few(len(self._gathered))
        if self._gathered and (self._pace.online or few):
            gathered, self._gathered = self._gathered, []
            for one in gathered:
                self._send_away(one, _Online())

    async def _send_off(self, batch: list[Asked], group: asyncio.TaskGroup) -> None:
        """One new batch, written down and submitted."""
        self._batching.at("gathered")
        try:
            entry = await self._ledger.intend(
                uuid.uuid4().hex[:16],
                self._teacher.account,
                self._desk.teacher.model,
                self._run,
                [one.member for one in batch],
            )
            self._open[entry.ref] = entry
            submitted = await self._courier.submit(entry, batch)
            if submitted is None:
                await self._forget(entry, batch)
                return
        except DistillError as error:
            # Whether it was submitted is for the next session to find out, where it is not known here.
            self._ending.stop(error)
            return
        self._desk.stats.sent += len(batch)
        self._say("batch", f"submitted: {len(batch)} requests as {submitted.batch}")
        self._open[entry.ref] = submitted
        self._begin(group, submitted, {one.member.key: one for one in batch})

    def _begin(self, group: asyncio.TaskGroup, entry: Entry, asked: dict[str, Asked]) -> None:
        task = group.create_task(self._see_through(entry, asked))
        task.add_done_callback(self._bringing_in.discard)

    async def _see_through(self, entry: Entry, asked: dict[str, Asked]) -> None:
        """A batch from wherever it stands to the end."""
        try:
            if entry.state == "intended":
                found = await self._courier.find(entry)
                if found is None:
                    await self._forget(entry, asked.values())
                    return
                entry = self._open[entry.ref] = await self._ledger.submitted(entry, found.id)
            batch = await self._courier.follow(entry)
            if (task := asyncio.current_task()) is not None:
                self._bringing_in.add(task)
            self._batching.at("ended")
            if batch.problem:
                await self._refused(entry, asked, batch.problem, passing=batch.passing)
                return
            path = await self._courier.fetch(entry, batch)
            try:
                kept, again = await self._harvest.bring_in(entry, path, asked)
            finally:
                path.unlink(missing_ok=True)
            self._batching.at("all stored")
            await self._ledger.close_entry(entry, batch.status)
            self._batching.at("closed")
        except DistillError as error:
            self._ending.stop(error)
            return
        del self._open[entry.ref]
        self._pace.accepted()
        self._say("batch", f"{batch.status}: {kept} of {entry.requests} requests answered, {entry.batch}")
        for one in asked.values():
            if one.member.key not in again:
                self._done(one)
        for key, failure in again.items():
            asked[key].attempts += 1
            if asked[key].attempts >= self._desk.config.max_attempts:
                self._harvest.give_up(asked[key], failure)
                self._done(asked[key])
            else:
                self._again(asked[key])
        if self._harvest.verdict is not None:
            self._ending.stop(self._harvest.verdict)

    async def _refused(self, entry: Entry, asked: dict[str, Asked], problem: str, *, passing: bool) -> None:
        """The provider carried nothing of it out, and billed nothing."""
        await self._ledger.close_entry(entry, problem)
        del self._open[entry.ref]
        if not passing:
            self._ending.stop(  # whoever waits is told by it
                RunError(
                    f"teacher {self._desk.name} ({self._desk.config.model}) refused a batch of {entry.requests} "
                    f"requests: {problem}",
                    hint="Nothing of it was carried out. `mode: online` asks without batches.",
                )
            )
            for one in asked.values():
                self._done(one)
            return
        most, wait = self._pace.too_much(entry.requests, self._clock())
        self._say("batch", f"{problem}; the next one has at most {most} requests", wait)
        for one in asked.values():
            self._again(one)

    async def _forget(self, entry: Entry, asked: Iterable[Asked]) -> None:
        """It never came to be."""
        await self._ledger.close_entry(entry, "not submitted", void=True)
        del self._open[entry.ref]
        for one in asked:
            self._again(one)

    def _again(self, one: Asked) -> None:
        """Ask once more, if anybody still wants to know."""
        if one.future is None or one.future.done() or self._ending.soft is not None:
            self._done(one)
        elif self._pace.online:
            self._send_away(one, _Online())
        elif one.held:
            self._gather(one)
        else:  # paid by another run until now, or counted as lost
            self._send_away(one, _Anew(one.attempts))

    def _send_away(self, one: Asked, how: _Online | _Anew) -> None:
        future = one.future
        self._done(one)
        if future is not None and not future.done():
            future.set_exception(how)

    def _done(self, one: Asked) -> None:
        if self._asked.get(one.member.key) is one:
            del self._asked[one.member.key]
        if one.held:
            one.held = False
            self._account.purse.release(one.member.worst)

    def _detached(self) -> Halted:
        requests = sum(entry.requests for entry in self._open.values())
        return Halted(
            f"detached: {len(self._open)} {'batch' if len(self._open) == 1 else 'batches'} with {requests:,} requests "
            f"of teacher {self._desk.name} are under way at the provider",
            hint="They go on without this process. The same command picks them up; give it again in some hours.",
        )

    def _say(self, kind: EventKind, message: str, seconds: float = 0.0) -> None:
        if self._tell is not None:
            self._tell(kind, self._desk.name, message, seconds)
