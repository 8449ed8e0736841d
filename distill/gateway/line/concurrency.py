"""How many requests may be in flight: found by asking, between one and the recipe's `max_concurrency`.

`Concurrency` is pure arithmetic: it hears of every start and every end, with the time, and says whether there is room.
It opens quickly while nothing is refused, shrinks by what was refused (at most by half per round trip), grows again by
a little, and listens to `Saturation` for servers that queue instead of refusing. docs/adaptive-concurrency.md has the
reasons and the measurements.

After: Jacobson, "Congestion Avoidance and Control", 1988 (slow start; additive increase, multiplicative decrease).
"""

from __future__ import annotations

from distill.gateway.line.saturation import Saturation

__all__ = ["Concurrency"]

_START = 64
_RAMP_STEP_S = 0.025
_AFRESH = 8


class Concurrency:
    """The adaptive window of one teacher.

    Args:
        ceiling: most requests in flight, ever.
        start: where to begin; by default 64, or the ceiling where that is less.
        ramp: open up further while nothing has come back yet. A refusal needs no generation and is back within a
            network round trip, so silence means accepted. Off for local engines, which refuse nothing.
        steady: stay at the ceiling unless something is refused. For engines of our own, which answer many at once and
            each of them late: there latency grows with the width, and so does the throughput.
    """

    def __init__(self, ceiling: int, *, start: int | None = None, ramp: bool = True, steady: bool = False) -> None:
        self.ceiling = ceiling
        self.limit = ceiling if steady else max(1, min(ceiling, start or _START))
        self._steady = steady
        self.in_flight = 0
        self._started = 0
        self._full = False
        self._credit = 0.0
        self._slow_start = True
        self._ramp = ramp
        self._ramp_step = self.limit
        self._ramped_at: float | None = None
        self._probe_from: int | None = None
        self._probes = 0
        self._cut_ticket = 0
        self._cut_floor = 1
        self._cut_refused = 0
        self._refused_at: float | None = None
        self._saturation = Saturation()

    def room(self, now: float) -> bool:
        """Whether one more may start."""
        if self._probe_from is not None:
            return self._probes < max(1, self.limit // 8)
        if self.in_flight < self.limit:
            return True
        self._full = True
        if self._ramp and self._ramped_at is not None:
            steps = int((now - self._ramped_at) / _RAMP_STEP_S + 1e-6)
            self.limit = min(self.ceiling, self.limit + steps * self._ramp_step)
            self._ramped_at += steps * _RAMP_STEP_S
        return self.in_flight < self.limit

    def opens_at(self) -> float | None:
        """The time at which more room comes by itself, if it does."""
        if not self._ramp or self._ramped_at is None or self.limit >= self.ceiling or self._probe_from is not None:
            return None
        return self._ramped_at + _RAMP_STEP_S

    def begin(self, now: float) -> int:
        """A request starts; returns its ticket."""
        self.in_flight += 1
        self._started += 1
        if self._ramped_at is None:
            self._ramped_at = now
        if self._probe_from is not None:
            self._probes += 1
        return self._started

    def answered(self, ticket: int, latency: float, now: float) -> None:
        """A request was answered after `latency` seconds."""
        if self._end(ticket):
            self._probe_from = None
        full, self._full = self._full, False
        self._ramp = False
        if self._steady:
            return
        advice = self._saturation.answered(latency, now, limit=self.limit, in_flight=self.in_flight, full=full)
        if advice is not None:
            self.limit = max(1, min(self.ceiling, advice))
            self._slow_start = self._slow_start and not self._saturation.found
        elif full and not self._saturation.holds:
            self._widen(1.0 if self._slow_start else self._pace() / self.limit)

    def refused(self, ticket: int) -> None:
        """The teacher refused a request as one too many (429, 503, 529), or let it time out."""
        self._end(ticket)
        self._ramp = self._full = False
        self._credit = 0.0
        self._cut_refused += 1
        if ticket > self._cut_ticket:  # started after the last cut began: another round trip
            self._cut_ticket, self._cut_floor, self._cut_refused = self._started, max(1, self.limit // 2), 1
            # A real ceiling refuses at the same width every time; refusals at random let this sink with the limit.
            self._refused_at = max(float(self.limit), 0.995 * (self._refused_at or 0.0))
        if self._cut_refused > max(2, self.limit // 10):  # more than the odd refusal: the ceiling is near
            self._slow_start = False
        self.limit = max(self._cut_floor, self.limit - 1)
        self._saturation.disturbed()

    def failed(self, ticket: int) -> None:
        """A request ended in a way that says nothing about the load."""
        self._end(ticket)

    def probe(self) -> None:
        """After a pause: a few requests at a time, until one of them is answered."""
        self._probe_from, self._probes = self._started, 0
        self._ramp = False

    def restart(self) -> None:
        """After an outage: begin with few, and open quickly while nothing is refused."""
        self._probe_from = None
        if self._steady:
            return
        self.limit = max(1, min(self.limit, _AFRESH))
        self._slow_start = True
        self._credit = 0.0
        self._saturation.disturbed()

    def _end(self, ticket: int) -> bool:
        """A request is no longer in flight; returns whether it was a probe."""
        self.in_flight -= 1
        probe = self._probe_from is not None and ticket > self._probe_from
        self._probes -= probe
        return probe

    def _pace(self) -> float:
        """Growth per round trip: a sixteenth, at least one; a quarter of that close to where the teacher refuses."""
        pace = max(1.0, self.ceiling / 128, self.limit / 16)
        if self._refused_at is not None:
            if self.limit > 1.05 * self._refused_at:
                self._refused_at = None
            elif self.limit >= 0.95 * self._refused_at:
                return pace / 4
        return pace

    def _widen(self, amount: float) -> None:
        self._credit += amount
        whole = int(self._credit)
        self._credit -= whole
        self.limit = min(self.ceiling, self.limit + whole)
