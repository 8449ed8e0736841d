"""One call from its first attempt to its answer on disk.

An attempt waits in the teacher's line, has its worst case reserved, is sent once, and ends in one of three ways: an
answer (stored, then given), a permanent refusal (stored too: the same question would be refused again), or a failure
that may pass (again later, up to the teacher's `max_attempts`). What failures mean for the teacher and for the run,
`Failing` decides.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from typing import Any

from distill.errors import AnswerError, FailureClass, Halted, RunError, TeacherError
from distill.gateway.account import Account
from distill.gateway.budget import Amount
from distill.gateway.call import Call, Elsewhere
from distill.gateway.desk import Desk
from distill.gateway.ending import Ending
from distill.gateway.failing import Failing
from distill.gateway.line.lane import AWAY
from distill.gateway.line.limits import Estimate
from distill.gateway.retries import PERMANENT, TRANSIENT, backoff, may_be_billed
from distill.gateway.stats import EventKind
from distill.gateway.store import AnswerStore, Record
from distill.teachers import Reading, Reply, Usage
from distill.teachers.ratelimit import clock_of, limits_from

__all__ = ["Call", "Caller", "read"]

_GRACE_S = 5.0
_LONGEST_RESET_S = 120.0
"""A reset further away is not waited for in one piece: a refusal names its own time."""


class Caller:
    """Carries calls out, for one run.

    Args:
        clock, wall: seconds that never jump, and Unix time.
        changed: told that a teacher was parked, or answers again.
    """

    def __init__(
        self,
        store: AnswerStore,
        account: Account,
        ending: Ending,
        *,
        run: str,
        clock: Callable[[], float],
        wall: Callable[[], float] = time.time,
        changed: Callable[[], None] = lambda: None,
        tell: Callable[[EventKind, str, str, float], None] | None,
    ) -> None:
        self._store = store
        self._account = account
        self._ending = ending
        self._run = run
        self._clock = clock
        self._wall = wall
        self._tell = tell
        self.failing = Failing(ending, clock=clock, wall=wall, changed=changed, say=self._say)

    async def carry_out(self, call: Call) -> tuple[Record, Reading | None]:
        """The record that stands in the store, and what this call read in it (None: it must be read again).

        Raises:
            TeacherError, AnswerError: no answer, or none that can be used.
            Elsewhere: another teacher of the group is to be asked.
            Halted, RunError: the run ends.
        """
        desk = call.desk
        leave = None if call.way is None else call.way.now
        attempt = 0
        while True:
            if desk.parking.shut:
                self.failing.look_around(call)
            attempt += 1
            outcome = await self._attempt(call)
            if not isinstance(outcome, TeacherError):
                return outcome
            desk.stats.by_failure[outcome.failure.value] += 1
            outcome.teacher = desk.name
            self.failing.judge(call, outcome)
            if outcome.failure not in TRANSIENT or attempt >= desk.config.max_attempts:
                raise self._give_up(call, outcome)
            self._ending.check()
            if desk.parking.shut:
                self.failing.look_around(call, outcome)
            desk.stats.retries += 1
            seconds = backoff(attempt, outcome, desk.rng, proven=desk.circuit.proven)
            self._say("retry", desk, f"{outcome.failure.value}: {outcome.message}", seconds)
            await desk.lane.rest(seconds, leave)
            self._ending.check()

    async def prove(self, desk: Desk) -> None:
        """The teacher answers, so its earlier refusals were meant: store them."""
        records = list(desk.unproven.values())
        desk.unproven.clear()
        for record in records:
            await self._commit(record, replace=False)

    # -- one attempt -------------------------------------------------------------------------------------------

    async def _attempt(self, call: Call) -> tuple[Record, Reading | None] | TeacherError:
        desk, lane = call.desk, call.desk.lane
        estimate = desk.estimate(call.request, call.size)
        worst = desk.worst(call.request, call.size)
        ticket = await self._turn(call, estimate, worst)
        desk.stats.sent += 1
        desk.stats.reserved_pico += worst.pico
        began = self._clock()
        reply: Reply | None = None
        failure: TeacherError | None = None
        try:
            reply = await self._send(call)
            desk.stats.by_status[reply.status] += 1
            failure = desk.teacher.failure(reply)
        except TeacherError as error:
            failure = error
        except BaseException:
            lane.left_failed(ticket, estimate)
            self._account.lose(worst)
            raise
        finally:
            desk.stats.reserved_pico -= worst.pico
        if failure is None and reply is not None:
            return await self._keep(call, reply, worst, ticket, estimate, self._clock() - began)
        failure = failure or TeacherError(FailureClass.MALFORMED, "no reply")
        if desk.daily is not None:
            counted = failure.failure is not FailureClass.RATE_LIMITED
            desk.daily.settle(estimate.input + estimate.output, 0, counted=counted)
        self.failing.attempt_failed(desk, ticket, failure)
        self._leave(desk, ticket, estimate, failure, reply)
        if may_be_billed(failure, reply):
            desk.stats.lost_pico += worst.pico
            self._account.lose(worst)
        else:
            self._account.release(worst)
        if reply is not None and _is_final(failure, reply):
            await self._keep_refusal(call, reply)
            failure.stored = True
        return failure

    async def _turn(self, call: Call, estimate: Estimate, worst: Amount) -> int:
        """Wait until the request may be sent, its worst case reserved; returns its ticket.

        Raises:
            Elsewhere: another teacher of the group is to be asked.
            Halted, RunError: the run ends.
        """
        desk, lane = call.desk, call.desk.lane
        leave = None if call.way is None else call.way.now
        while True:
            ticket = await lane.enter(estimate, leave)
            if ticket <= 0:
                self._ending.check()
                if ticket == AWAY:
                    raise Elsewhere
                raise Halted("the line was dismissed")
            try:
                self._ending.check()
                await self._account.reserve(worst)
            except BaseException:
                lane.left_failed(ticket, estimate)
                raise
            # The quota comes last: whoever has a part of it is sent, also when the next one finds it used up.
            if desk.daily is None:
                return ticket
            tokens, now = estimate.input + estimate.output, self._clock()
            seconds = desk.daily.wait(tokens, now)
            if not seconds:
                desk.daily.take(tokens, now)
                return ticket
            self._account.release(worst)
            lane.left_failed(ticket, estimate)
            told = f"teacher {desk.name} ({desk.config.model}): the quota of the day is used up"
            self.failing.used_up(call, seconds, f"{told}: {desk.daily.in_words()}")

    async def _send(self, call: Call) -> Reply:
        timeout = call.desk.config.timeout_s
        try:
            # Teachers keep the timeout themselves; this is for one that hangs.
            async with asyncio.timeout(timeout + _GRACE_S):
                return await call.desk.teacher.send(call.wire, timeout=timeout)
        except TimeoutError:
            raise TeacherError(FailureClass.TIMEOUT, f"no answer within {timeout:g} s") from None

    def _leave(self, desk: Desk, ticket: int, estimate: Estimate, failure: TeacherError, reply: Reply | None) -> None:
        """Tell the line what the failure says about the load."""
        if failure.failure is FailureClass.RATE_LIMITED or (reply is not None and reply.status in (503, 529)):
            if failure.retry_after is None and reply is not None:
                failure.retry_after = _used_up_for(reply.headers)
            paused = desk.lane.left_refused(ticket, estimate, failure.retry_after)
            self._say("refused", desk, failure.message)
            if paused:
                self._say("paused", desk, failure.message, paused)
        elif failure.failure is FailureClass.TIMEOUT:
            desk.lane.left_timed_out(ticket, estimate)
        else:
            desk.lane.left_failed(ticket, estimate)

    def _give_up(self, call: Call, error: TeacherError) -> TeacherError:
        desk = call.desk
        desk.stats.failed += 1
        self._say("failed", desk, f"{error.failure.value}: {error.message}")
        trip = desk.circuit.call_failed(error)
        if trip is not None:
            desk.unproven.clear()
            if call.way is None:
                self._ending.stop(desk.stop(trip))
            else:
                self.failing.broke_down(call, trip, error)
        return error

    # -- what is kept ------------------------------------------------------------------------------------------

    async def _keep(
        self, call: Call, reply: Reply, worst: Amount, ticket: int, estimate: Estimate, latency: float
    ) -> tuple[Record, Reading | None]:
        """Store an answer, then give it."""
        desk = call.desk
        reading: Reading | None = None
        unreadable: AnswerError | None = None
        try:
            reading = read(desk, reply.body, call.key)
        except AnswerError as error:
            unreadable = error
        told = reading is not None and _tells_usage(reading)
        usage = reading.usage if reading is not None and told else Usage()
        pico = desk.cost(usage)
        real = Estimate(usage.input, usage.output) if told else estimate
        if desk.daily is not None:
            desk.daily.settle(estimate.input + estimate.output, real.input + real.output)
        parking = desk.parking
        if parking.shut or parking.failures or parking.grouped:
            self.failing.answered(call, ticket, latency)
        desk.lane.left_answered(ticket, estimate, real, latency)
        pause = _used_up_for(reply.headers)
        if pause is not None:
            desk.lane.pause(pause)
            self._say("paused", desk, "the rate-limit headers say that nothing remains", pause)
        desk.circuit.answered()
        desk.stats.count(usage, pico, latency)
        if not told:  # it was paid, but how much cannot be read from it
            desk.stats.lost_pico += worst.pico
            self._account.lose(worst)
        else:
            desk.learn(call.size, usage, worst)
            self._account.settle(worst, Amount(pico, usage.total))
        record = self._record(call, reply, usage, pico, "unreadable" if reading is None else reading.finish)
        standing = await self._commit(record, replace=call.replace)
        if told:
            self._account.stored(worst)
        if desk.unproven:
            await self.prove(desk)
        self._say("answered", desk, seconds=latency)
        if unreadable is not None:
            raise unreadable
        # Another process may have been first: its answer is the one that every replay will give.
        return standing, reading if standing is record else None

    async def _keep_refusal(self, call: Call, reply: Reply) -> None:
        record = self._record(call, reply, Usage(), 0, "")
        if call.desk.circuit.proven:
            await self._commit(record, replace=call.replace)
        else:
            call.desk.unproven[call.key] = record

    def _record(self, call: Call, reply: Reply, usage: Usage, pico: int, finish: str) -> Record:
        how: dict[str, Any] = {"key": call.key, "sample": call.sample, "wire": call.wire}
        return call.desk.record(reply, usage, pico, finish, run=self._run, created=self._wall(), **how)

    async def _commit(self, record: Record, *, replace: bool) -> Record:
        try:
            return await self._store.put(record, replace=replace)
        except RunError as error:
            self._ending.stop(error)
            raise

    def _say(self, kind: EventKind, desk: Desk, message: str = "", seconds: float = 0.0) -> None:
        if self._tell is not None:
            self._tell(kind, desk.name, message, seconds)


def read(desk: Desk, body: bytes, key: str) -> Reading:
    """What a stored body says; an error names the key that finds it."""
    try:
        return desk.teacher.read(body)
    except AnswerError as error:
        error.teacher = desk.name
        if key not in error.keys:
            error.keys = (*error.keys, key)
        raise


def _tells_usage(reading: Reading) -> bool:
    """Whether the answer says how many tokens it took. Some servers say nothing, some only those of the prompt."""
    return reading.usage.total > 0 and (reading.usage.output > 0 or not (reading.text or reading.reasoning))


def _is_final(failure: TeacherError, reply: Reply) -> bool:
    """Whether asking again could never help. A missing route or model, a redirect: those may be set right tomorrow."""
    if failure.failure is FailureClass.BAD_REQUEST:
        return reply.status in (200, 400, 413, 422, 429)
    return failure.failure in PERMANENT


def _used_up_for(headers: Mapping[str, str]) -> float | None:
    """Seconds until the provider allows more, when its headers say that nothing remains."""
    if not any(value == "0" and "remaining" in name for name, value in headers.items()):
        return None
    reset = limits_from(headers, wall=clock_of(headers, wall=time.time())).reset_s
    return min(reset, _LONGEST_RESET_S) if reset else None
