"""One call from its first attempt to its answer on disk.

An attempt waits in the teacher's line, has its worst case reserved, is sent once, and ends in one of three ways: an
answer (stored, then given), a permanent refusal (stored too: the same question would be refused again), or a failure
that may pass (again later, up to the teacher's `max_attempts`).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from distill.errors import AnswerError, DistillError, FailureClass, Halted, RunError, TeacherError
from distill.gateway.account import Account
from distill.gateway.budget import Amount
from distill.gateway.desk import Desk
from distill.gateway.ending import Ending, fresh
from distill.gateway.limits import Estimate
from distill.gateway.retries import PERMANENT, TRANSIENT, backoff, may_be_billed
from distill.gateway.stats import EventKind
from distill.gateway.store import AnswerStore, Record
from distill.teachers import Reading, Reply, Request, Usage
from distill.teachers.ratelimit import limits_from

__all__ = ["Call", "Caller", "read"]

_GRACE_S = 5.0
_LONGEST_WAIT_S = 900.0
_LONGEST_RESET_S = 120.0
"""A reset further away is not waited for in one piece: a refusal names its own time."""


@dataclass(slots=True)
class Call:
    """One question on its way. `future` is what those who asked wait for."""

    desk: Desk
    request: Request
    wire: Mapping[str, Any]
    key: str
    sample: int
    size: int
    future: asyncio.Future[Any]
    replace: bool = False


class Caller:
    """Carries calls out, for one run."""

    def __init__(
        self,
        store: AnswerStore,
        account: Account,
        ending: Ending,
        *,
        run: str,
        clock: Callable[[], float],
        tell: Callable[[EventKind, str, str, float], None] | None,
    ) -> None:
        self._store = store
        self._account = account
        self._ending = ending
        self._run = run
        self._clock = clock
        self._tell = tell

    async def carry_out(self, call: Call) -> tuple[Record, Reading | None]:
        """The record that stands in the store, and what this call read in it (None: it must be read again).

        Raises:
            TeacherError, AnswerError: no answer, or none that can be used.
            Halted, RunError: the run ends.
        """
        desk = call.desk
        attempt = 0
        while True:
            attempt += 1
            outcome = await self._attempt(call)
            if not isinstance(outcome, TeacherError):
                return outcome
            desk.stats.by_failure[outcome.failure.value] += 1
            end = self._verdict(desk, outcome)
            if end is not None:
                self._ending.stop(end)
                raise fresh(end)
            if outcome.failure not in TRANSIENT or attempt >= desk.config.max_attempts:
                raise self._give_up(desk, outcome)
            self._ending.check()
            desk.stats.retries += 1
            seconds = backoff(attempt, outcome, desk.rng, proven=desk.circuit.proven)
            self._say("retry", desk, f"{outcome.failure.value}: {outcome.message}", seconds)
            await desk.lane.rest(seconds)
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
        ticket = await lane.enter(estimate)
        if not ticket:
            self._ending.check()
            raise Halted("the line was dismissed")
        try:
            self._ending.check()
            await self._account.reserve(worst)
        except BaseException:
            lane.left_failed(ticket, estimate)
            raise
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

    def _verdict(self, desk: Desk, error: TeacherError) -> DistillError | None:
        """Whether one failed attempt ends the run."""
        end = desk.verdict(error)
        if end is None:
            trip = desk.circuit.attempt_failed(error, self._clock())
            end = desk.stop(trip) if trip is not None else None
        if end is None and error.retry_after is not None and error.retry_after > _LONGEST_WAIT_S:
            end = Halted(
                f"teacher {desk.name} asks to wait {error.retry_after:,.0f} s: {error.message}",
                hint="Everything paid so far is kept. Run the same command later to go on.",
            )
        return end

    def _give_up(self, desk: Desk, error: TeacherError) -> TeacherError:
        desk.stats.failed += 1
        self._say("failed", desk, f"{error.failure.value}: {error.message}")
        trip = desk.circuit.call_failed(error)
        if trip is not None:
            desk.unproven.clear()
            self._ending.stop(desk.stop(trip))
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
        usage = Usage() if reading is None else reading.usage
        pico = desk.cost(usage)
        desk.lane.left_answered(ticket, estimate, Estimate(usage.input, usage.output), latency)
        pause = _used_up_for(reply.headers)
        if pause is not None:
            desk.lane.pause(pause)
            self._say("paused", desk, "the rate-limit headers say that nothing remains", pause)
        desk.circuit.answered()
        desk.stats.count(usage, pico, latency)
        if reading is None:  # it was paid, but how much cannot be read from it
            desk.stats.lost_pico += worst.pico
            self._account.lose(worst)
        else:
            desk.learn(call.size, usage, worst)
            self._account.settle(worst, Amount(pico, usage.total))
        record = self._record(call, reply, usage, pico, "unreadable" if reading is None else reading.finish)
        standing = await self._commit(record, replace=call.replace)
        if reading is not None:
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
        teacher = call.desk.teacher
        return Record(
            key=call.key,
            provider=teacher.provider,
            model=teacher.model,
            sample=call.sample,
            status=reply.status,
            body=reply.body,
            input=usage.input,
            output=usage.output,
            cached=usage.cached,
            cache_write=usage.cache_write,
            reasoning=usage.reasoning,
            cost_pico=pico,
            finish=finish,
            run=self._run,
            created=time.time(),
        )

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
        if key not in error.keys:
            error.keys = (*error.keys, key)
        raise


def _is_final(failure: TeacherError, reply: Reply) -> bool:
    """Whether asking again could never help. A missing route or model, a redirect: those may be set right tomorrow."""
    if failure.failure is FailureClass.BAD_REQUEST:
        return reply.status in (200, 400, 413, 422, 429)
    return failure.failure in PERMANENT


def _used_up_for(headers: Mapping[str, str]) -> float | None:
    """Seconds until the provider allows more, when its headers say that nothing remains."""
    if not any(value == "0" and "remaining" in name for name, value in headers.items()):
        return None
    reset = limits_from(headers, wall=time.time()).reset_s
    return min(reset, _LONGEST_RESET_S) if reset else None
