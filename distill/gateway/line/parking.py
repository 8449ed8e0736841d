"""When a teacher is asked no more for a while, and how it comes back.

A teacher that fails again and again, that is much slower than it used to be while another could answer, or whose quota
is used up, is parked: nothing is sent but one real question at a time, at intervals that double while it fails. The
first answer opens it again. What waits for it goes to another teacher of its group where one is up, else it waits here.

After: Nygard, "Release It!", 2007 (circuit breaker: open, half-open, closed).
"""

from __future__ import annotations

import random
from collections.abc import Callable

from distill.errors import DistillError, FailureClass, TeacherError

__all__ = ["Parking"]

_IN_A_ROW = 8
"""Failed attempts with no answer between them."""
_FEW = 3
_FOR_LONG_S = 60.0
"""So few are enough when they took so long: slow failures are few."""
_FIRST_S = 1.0
_LONGEST_S = 60.0
_DAILY_FIRST_S = 60.0
_DAILY_LONGEST_S = 3600.0
_STABLE_S = 60.0
"""Open for so long, the intervals begin small again."""
_SLOW = 6.0
"""Times its own median latency, and so many seconds above it."""
_SLOW_S = 5.0
_LEARNED = 30
_FAILING = frozenset({FailureClass.OVERLOADED, FailureClass.TIMEOUT, FailureClass.CONNECTION, FailureClass.MALFORMED})


class Parking:
    """The state of one teacher. Times are in seconds of the gateway's clock.

    `grouped` teachers are parked before they have ever answered, and for being slow while another one is up. One that
    stands alone is not: what never worked is soon given up by `Circuit`, and slow answers are better than none.
    """

    __slots__ = (
        "_failed_since",
        "_interval",
        "_latencies",
        "_median",
        "_opened",
        "_probe",
        "_recent",
        "_rng",
        "_since",
        "failures",
        "gone",
        "grouped",
        "outage",
        "reason",
        "seconds",
        "shut",
        "times",
        "until",
    )

    def __init__(self, rng: random.Random) -> None:
        self.grouped = False
        self.shut = False
        self.until = 0.0
        """When the next question may be sent, while it is shut."""
        self.reason = ""
        self.gone: DistillError | None = None
        """Why it cannot answer in this session at all: no key, no money, no such model."""
        self.outage: DistillError | None = None
        """Why the run would have stopped if nobody else answered; an answer takes it back."""
        self.failures = 0
        """Failed attempts since the last answer."""
        self.times = 0
        self.seconds = 0.0
        self._rng = rng
        self._failed_since = 0.0
        self._interval = _FIRST_S
        self._opened = float("-inf")
        self._since = 0.0
        self._probe = 0
        self._latencies = 0
        self._median = 0.0
        self._recent = 0.0

    # -- what happens ------------------------------------------------------------------------------------------

    def answered(self, ticket: int, latency: float, now: float, *, elsewhere: Callable[[], bool] | None = None) -> bool:
        """An answer came. Returns whether that changes something for those who wait: it is parked by it, or opened.
        `elsewhere` tells whether another teacher could have given it.
        """
        self.failures = 0
        self.outage = None
        if not self.grouped:
            return self.shut and self._open(now)
        slow = self._learn(latency)
        if self.shut:
            if self.reason == "slow" and latency > self._median + max(_SLOW_S, _SLOW / 2 * self._median):
                if ticket == self._probe:
                    self._again(now)
                return False
            return self._open(now)
        if not slow or elsewhere is None or not elsewhere():
            return False
        self._close("slow", now)
        self.until = now + self._wait()
        return True

    def failed(self, ticket: int, error: TeacherError, now: float, *, proven: bool) -> bool:
        """An attempt failed. Returns whether it is parked by that."""
        if error.failure not in _FAILING:
            return False
        self._failed_since = now if not self.failures else self._failed_since
        self.failures += 1
        if self.shut:
            if ticket == self._probe:  # others were sent before it was parked, and say nothing new
                self._again(now, error.retry_after)
            return False
        if not (proven or self.grouped):
            return False
        if self.failures < _IN_A_ROW and (self.failures < _FEW or now - self._failed_since < _FOR_LONG_S):
            return False
        self._close(error.failure.value, now)
        self._again(now, error.retry_after)
        return True

    def used_up(self, seconds: float | None, now: float) -> bool:
        """A quota is used up for so long, or nobody knows how long. Returns whether it is parked by that."""
        newly = not self.shut
        if newly:
            self._close("quota used up", now)
            self._interval = _DAILY_FIRST_S
        if seconds is None or seconds < self._interval:
            seconds = self._interval
            self._interval = min(_DAILY_LONGEST_S, 2 * self._interval)
        self.until = max(self.until, now + seconds)
        return newly

    def lost(self, reason: DistillError, now: float) -> None:
        """It cannot answer in this session any more."""
        self.gone = self.gone or reason
        if not self.shut:
            self._close("given up", now)
        self.until = float("inf")

    def broke_down(self, reason: DistillError, now: float) -> None:
        """Its circuit opened: alone, it would have ended the run."""
        self.outage = reason
        if not self.shut:
            self._close("down", now)
            self._again(now)

    def down_s(self, now: float) -> float:
        """Seconds since the first of them."""
        return now - self._failed_since if self.failures else 0.0

    # -- for the line ------------------------------------------------------------------------------------------

    def opens(self, now: float) -> float | None:
        """When a question may be sent while it is shut: None is now, infinity is when the one under way has ended."""
        if now < self.until:
            return self.until
        return float("inf") if self._probe else None

    def probes(self, ticket: int) -> None:
        """The request with this ticket is sent although it is shut."""
        self._probe = ticket

    def ended(self, ticket: int) -> None:
        """The request with this ticket has ended somehow."""
        if ticket == self._probe:
            self._probe = 0

    def state(self, now: float) -> str:
        """For people: empty when it is open."""
        if not self.shut:
            return ""
        if self.gone is not None:
            return f"given up: {self.gone.message}"
        left = self.until - now
        return f"parked: {self.reason}, next try {'now' if left <= 0 else f'in {_in_words(left)}'}"

    def parked_s(self, now: float) -> float:
        """Seconds that it was shut, in all."""
        return self.seconds + (now - self._since if self.shut else 0.0)

    # -- inside ------------------------------------------------------------------------------------------------

    def _close(self, reason: str, now: float) -> None:
        if now - self._opened > _STABLE_S:
            self._interval = _FIRST_S
        self.shut, self.reason, self._since, self._probe = True, reason, now, 0
        self.until = now
        self.times += 1

    def _again(self, now: float, retry_after: float | None = None) -> None:
        self.until = max(self.until, now + max(self._wait(), retry_after or 0.0))

    def _wait(self) -> float:
        seconds = self._rng.uniform(0.75, 1.25) * self._interval
        self._interval = max(self._interval, min(_LONGEST_S, 2 * self._interval))
        return seconds

    def _open(self, now: float) -> bool:
        self.seconds += now - self._since
        self.shut, self.gone, self._probe, self._opened = False, None, 0, now
        self._recent = self._median
        return True

    def _learn(self, latency: float) -> bool:
        """Whether answers have become much slower than they were. The median is followed by steps of a fixed share of
        itself, up or down, the mean of the recent ones by an eighth."""
        self._latencies += 1
        if self._latencies == 1:
            self._median = self._recent = latency
            return False
        self._recent += (latency - self._recent) / 8
        step = self._median * (0.25 if self._latencies < _LEARNED else 0.01)
        self._median += step if latency > self._median else -step
        above = self._recent - self._median
        return self._latencies > _LEARNED and above > _SLOW_S and self._recent > _SLOW * self._median


def _in_words(seconds: float) -> str:
    if seconds >= 5400:
        return f"{seconds / 3600:.1f} h"
    return f"{seconds / 60:.0f} min" if seconds >= 90 else f"{seconds:.0f} s"
