"""What an attempt that failed means: for its question, for the teacher, for the run.

A teacher that is of no use (no key, no money, no such model), that is down for too long or whose quota is used up ends
the run, unless the question was put to a group and another teacher can answer: then only that teacher is parked. The
run ends when nobody can answer any more, with the reasons of all.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import NoReturn

from distill.errors import DistillError, FailureClass, Halted, TeacherError
from distill.gateway.call import Call, Elsewhere
from distill.gateway.desk import Desk
from distill.gateway.ending import Ending, fresh
from distill.gateway.retries import TRANSIENT, Trip
from distill.gateway.stats import EventKind

__all__ = ["Failing"]

LONGEST_WAIT_S = 900.0
"""A longer wait is worth it only within the hours that the recipe gives a session."""
_WORTH_MOVING_S = 60.0
"""Where another teacher can answer, a refusal for so long parks this one."""


class Failing:
    """Judges failures for one gateway.

    Args:
        clock, wall: the gateway's seconds, and Unix time.
        changed: told that a teacher was parked or opened.
        say: tells those who watch.
    """

    def __init__(
        self,
        ending: Ending,
        *,
        clock: Callable[[], float],
        wall: Callable[[], float],
        changed: Callable[[], None],
        say: Callable[[EventKind, Desk, str, float], None],
    ) -> None:
        self._ending = ending
        self._clock = clock
        self._wall = wall
        self._changed = changed
        self._say = say
        self.deadline = float("-inf")
        """When the session's hours end; minus infinity where it has none."""

    # -- while it is asked -------------------------------------------------------------------------------------

    def look_around(self, call: Call, error: TeacherError | None = None) -> None:
        """The teacher is parked: is this question better put to another one?

        Raises:
            Elsewhere: it is.
            Halted, RunError: it can be put to nobody. The run ends.
        """
        parking, way = call.desk.parking, call.way
        if parking.gone is not None:
            self._leave_or_stop(call, parking.gone, error)
        if way is not None and parking.opens(self._clock()) is not None and way.now():
            raise Elsewhere(error)

    def answered(self, call: Call, ticket: int, latency: float) -> None:
        """An answer came after `latency` seconds."""
        desk, now = call.desk, self._clock()
        parking = desk.parking
        elsewhere = None if call.way is None else call.way.now
        if not parking.answered(ticket, latency, now, elsewhere=elsewhere):
            return
        if parking.shut:
            self._say("parked", desk, f"answers take {latency:.1f} s, far longer than before", parking.until - now)
        else:
            self._say("opened", desk, "", 0.0)
            desk.lane.reopen()
        self._changed()

    def attempt_failed(self, desk: Desk, ticket: int, error: TeacherError) -> None:
        """An attempt failed: perhaps one too many. Before its ticket is given back to the line."""
        now = self._clock()
        if desk.parking.failed(ticket, error, now, proven=desk.circuit.proven):
            self._say("parked", desk, f"{error.failure.value}: {error.message}", desk.parking.until - now)
            self._changed()

    # -- what follows ------------------------------------------------------------------------------------------

    def judge(self, call: Call, error: TeacherError) -> None:
        """What follows from one failed attempt beside the fate of its question.

        Raises:
            Elsewhere: the teacher is parked, and the question goes to another one.
            Halted, RunError: nobody can answer. The run ends.
        """
        desk, way = call.desk, call.way
        end = desk.verdict(error) if way is None else desk.given_up(error)
        if end is not None:
            newly = desk.parking.gone is None
            desk.parking.lost(end, self._clock())
            if newly:
                self._say("parked", desk, f"given up: {end.message}", 0.0)
            self._leave_or_stop(call, end, error)
        wait = error.retry_after or 0.0
        if error.daily or wait > LONGEST_WAIT_S or (way is not None and wait > _WORTH_MOVING_S):
            self.used_up(call, error.retry_after, self._asks_to_wait(desk, error), error)
            return
        now = self._clock()
        trip = desk.circuit.attempt_failed(error, now) or desk.exhausted(error, now)
        if trip is not None:
            self.broke_down(call, trip, error)

    def used_up(self, call: Call, seconds: float | None, message: str, error: TeacherError | None = None) -> None:
        """The teacher's quota is used up for so many seconds, or nobody knows for how long. Returns where the question
        waits for that.

        Raises:
            Elsewhere, Halted: as in `judge`.
        """
        desk, way, now = call.desk, call.way, self._clock()
        if desk.parking.used_up(seconds, now):
            self._say("parked", desk, message, desk.parking.until - now)
            self._changed()
        if way is not None and way.ever():
            raise Elsewhere(error)
        if self.may_wait(desk.parking.until):
            return
        when = datetime.fromtimestamp(self._wall() + desk.parking.until - now, UTC).astimezone()
        known = f"after {when:%Y-%m-%d %H:%M %Z}" if seconds is not None else "later: it did not say when"
        end: DistillError = Halted(
            message,
            hint=f"Everything paid so far is kept. Run the same command {known}; within `budget.hours` a run waits.",
        )
        self._stop(end if way is None else way.nobody(end))

    def broke_down(self, call: Call, trip: Trip, error: TeacherError) -> None:
        """The teacher's circuit opened.

        Raises:
            Elsewhere, Halted, RunError: as in `judge`.
        """
        desk, end = call.desk, call.desk.stop(trip)
        if call.way is None:
            self._stop(end)
        newly = desk.parking.outage is None and desk.parking.gone is None
        if trip.failure in TRANSIENT:
            desk.parking.broke_down(end, self._clock())
        else:  # every question is refused: it is set up wrong
            desk.parking.lost(end, self._clock())
        if newly:
            self._say("parked", desk, end.message, 0.0)
        self._leave_or_stop(call, end, error)

    def may_wait(self, until: float) -> bool:
        """Whether the run may wait until that time of the gateway's clock."""
        return until - self._clock() <= LONGEST_WAIT_S or until <= self.deadline

    def _leave_or_stop(self, call: Call, end: DistillError, error: TeacherError | None) -> NoReturn:
        if call.way is None:
            self._stop(end)
        elif not call.way.ever():
            self._stop(call.way.nobody(end))
        self._changed()
        raise Elsewhere(error)

    def _stop(self, end: DistillError) -> NoReturn:
        self._ending.stop(end)
        raise fresh(end)

    def _asks_to_wait(self, desk: Desk, error: TeacherError) -> str:
        if error.failure is FailureClass.RATE_LIMITED and error.daily:
            wait = "" if error.retry_after is None else f" for {error.retry_after:,.0f} s"
            return (
                f"teacher {desk.name} ({desk.config.model}): the quota of the day is used up{wait}"
                f" ({error.failure.value}): {error.message}"
            )
        return f"teacher {desk.name} asks to wait {error.retry_after or 0.0:,.0f} s: {error.message}"
