"""The line before one teacher: first come, first served, through concurrency, rate limits and pauses.

Nobody polls. A request that may start starts at once; others wait in a queue that is served whenever a request ends,
and by one pacer task that sleeps exactly until time itself opens the door (a bucket refills, a pause ends, a retry is
due). Every step is O(1) per request (retries O(log n)). A teacher that is parked lets one question through at a time;
whoever waits and could be answered elsewhere is sent away by `evict`.
"""

from __future__ import annotations

import asyncio
import heapq
import random
from collections import deque
from collections.abc import Awaitable, Callable
from itertools import count

from distill.gateway.line.concurrency import Concurrency
from distill.gateway.line.limits import Estimate, RateLimits
from distill.gateway.line.parking import Parking

__all__ = ["AWAY", "Lane"]

AWAY = -1
"""The ticket of one who waited, and is to ask another teacher."""

_PAUSE_S = 0.5
_LONGEST_PAUSE_S = 30.0
_IN_A_ROW = 3

Leave = Callable[[], bool]
"""Whether one who waits could be answered elsewhere."""


class Lane:
    """The queue and the brakes of one teacher."""

    def __init__(
        self,
        concurrency: Concurrency,
        limits: RateLimits,
        *,
        clock: Callable[[], float],
        sleep: Callable[[float], Awaitable[None]],
        rng: random.Random,
    ) -> None:
        self.concurrency = concurrency
        self.limits = limits
        self.parking = Parking(rng)
        self.paused_until = float("-inf")
        self._clock = clock
        self._sleep = sleep
        self._rng = rng
        self._queue: deque[tuple[Estimate, asyncio.Future[int], Leave | None]] = deque()
        self._due: list[tuple[float, int, asyncio.Future[None], Leave | None]] = []
        self._order = count()
        self._changed = asyncio.Event()
        self._asleep_until = float("inf")
        self._refused_in_a_row = 0
        self._pauses_in_a_row = 0

    async def enter(self, estimate: Estimate, leave: Leave | None = None) -> int:
        """Wait for one's turn; returns the ticket that `left_*` wants back. Zero: the line was dismissed; `AWAY`:
        another teacher can answer, which `leave` tells."""
        now = self._clock()
        opens = float("inf")
        if not self._queue:
            opens = self._opens(estimate, now)
            if opens is None:
                return self._admit(estimate, now)
        future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._queue.append((estimate, future, leave))
        self._wake(opens)
        try:
            return await future
        except asyncio.CancelledError:
            if future.done() and not future.cancelled() and future.result() > 0:
                self.left_failed(future.result(), estimate)  # admitted at the very moment of the cancellation
            raise

    def left_answered(self, ticket: int, estimate: Estimate, real: Estimate, latency: float) -> None:
        """The request was answered."""
        self.concurrency.answered(ticket, latency, self._clock())
        self._ended(ticket)
        self.limits.settle(estimate, real)
        self._refused_in_a_row = self._pauses_in_a_row = 0
        self._serve()

    def left_refused(self, ticket: int, estimate: Estimate, retry_after: float | None) -> float | None:
        """The teacher refused it as one too many. Returns for how long the whole teacher is paused now, if it is.

        A named time pauses everybody: the provider speaks of the account, not of the request. Without one, refusals in
        a row with no answer between them do, once they outnumber what is still under way; for a time that doubles.
        """
        self.concurrency.refused(ticket)
        self._ended(ticket)
        self.limits.settle(estimate, Estimate(0, 0))
        self._refused_in_a_row += 1
        seconds = retry_after
        shut = self._refused_in_a_row >= max(_IN_A_ROW, self.concurrency.in_flight)
        if seconds is None and shut and self._clock() >= self.paused_until:
            bound = min(_LONGEST_PAUSE_S, _PAUSE_S * 2 ** min(self._pauses_in_a_row, 10))
            seconds = self._rng.uniform(bound / 2, bound)
            self._pauses_in_a_row += 1
        if seconds is not None:
            self.pause(seconds)
            self.concurrency.probe()
        self._serve()
        return seconds

    def left_timed_out(self, ticket: int, estimate: Estimate) -> None:
        """No answer in time: perhaps a queue too long, so the window shrinks, but nothing is paused."""
        self.concurrency.refused(ticket)
        self._ended(ticket)
        self.limits.settle(estimate, Estimate(0, 0))
        self._serve()

    def left_failed(self, ticket: int, estimate: Estimate) -> None:
        """It ended in a way that says nothing about the load."""
        self.concurrency.failed(ticket)
        self._ended(ticket)
        self.limits.settle(estimate, Estimate(0, 0))
        self._serve()

    def pause(self, seconds: float) -> None:
        """Start nothing for so long."""
        self.paused_until = max(self.paused_until, self._clock() + seconds)

    async def rest(self, seconds: float, leave: Leave | None = None) -> None:
        """Wait before a retry; ends early when the line is dismissed, or another teacher can answer."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        due = self._clock() + seconds
        heapq.heappush(self._due, (due, next(self._order), future, leave))
        self._wake(due)
        await future

    def dismiss(self) -> None:
        """Send everybody away who waits here."""
        while self._queue:
            _, future, _ = self._queue.popleft()
            if not future.done():
                future.set_result(0)
        while self._due:
            _, _, resting, _ = heapq.heappop(self._due)
            if not resting.done():
                resting.set_result(None)

    def evict(self) -> None:
        """Send those away who wait here and could be answered elsewhere."""
        for _, future, leave in self._queue:
            if leave is not None and not future.done() and leave():
                future.set_result(AWAY)
        for _, _, resting, leave in self._due:
            if leave is not None and not resting.done() and leave():
                resting.set_result(None)

    def reopen(self) -> None:
        """The teacher answers again after it was parked: begin with few, and serve who waits."""
        self.concurrency.restart()
        self._serve()

    async def pace(self) -> None:
        """Serve the line as time passes; runs until cancelled."""
        while True:
            self._changed.clear()
            self._asleep_until = self._admit_all()
            if self._asleep_until == float("inf"):
                await self._changed.wait()
            else:
                await self._until_changed(max(0.0, self._asleep_until - self._clock()))

    async def _until_changed(self, seconds: float) -> None:
        sleeper = asyncio.ensure_future(self._sleep(seconds))
        changed = asyncio.ensure_future(self._changed.wait())
        try:
            await asyncio.wait((sleeper, changed), return_when=asyncio.FIRST_COMPLETED)
        finally:
            sleeper.cancel()
            changed.cancel()

    def _ended(self, ticket: int) -> None:
        if self.parking.shut:
            self.parking.ended(ticket)

    def _serve(self) -> None:
        self._wake(self._admit_all())

    def _wake(self, opens: float) -> None:
        """See to it that the pacer looks at time `opens`."""
        if opens < self._asleep_until:
            self._changed.set()

    def _admit_all(self) -> float:
        """Admit everybody who may start; returns the time at which to look again (infinity: when something ends)."""
        now = self._clock()
        while self._due and (self._due[0][0] <= now or self._due[0][2].done()):
            resting = heapq.heappop(self._due)[2]
            if not resting.done():
                resting.set_result(None)
        again = self._due[0][0] if self._due else float("inf")
        while self._queue:
            estimate, future, _ = self._queue[0]
            if not future.done():
                opens = self._opens(estimate, now)
                if opens is not None:
                    return min(again, opens)
                future.set_result(self._admit(estimate, now))
            self._queue.popleft()
        return again

    def _opens(self, estimate: Estimate, now: float) -> float | None:
        """When a request of this size may start: None is now, infinity is when another one ends."""
        if self.parking.shut:
            opens = self.parking.opens(now)
            if opens is not None:
                return opens
        if now < self.paused_until:
            return self.paused_until
        if not self.concurrency.room(now):
            opens = self.concurrency.opens_at()
            return float("inf") if opens is None else opens
        wait = self.limits.wait(estimate, now)
        return now + wait if wait > 0 else None

    def _admit(self, estimate: Estimate, now: float) -> int:
        self.limits.take(estimate)
        ticket = self.concurrency.begin(now)
        if self.parking.shut:
            self.parking.probes(ticket)
        return ticket
