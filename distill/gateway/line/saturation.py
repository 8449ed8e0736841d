"""Servers that queue instead of refusing: find the narrowest window that loses no throughput.

A self-hosted server takes whatever it is sent and works on so many at a time; the rest waits there, where it cannot be
recalled, grows latencies into timeouts, and gains nothing. The sign is latency well above the fastest answer seen; but
answers of different lengths give the same sign, so the sign is only a reason to look. Looking means one experiment:
halve the window for one turnover and compare answers per second. Throughput that holds was queueing, and the window
stays narrow (and is halved again); throughput that falls was real work, the window is restored, and the next experiment
is further away. A server of constant latency never shows the sign and is never slowed.

After: Brakmo and Peterson, "TCP Vegas", 1994 (delay as the signal of a queue).
"""

from __future__ import annotations

__all__ = ["Saturation"]

_SUSPICIOUS = 2.0
"""Mean latency over fastest answer."""
_HOLDS = 0.93
"""Share of the throughput that a narrower window must keep."""
_TURNOVERS = 2
"""Times the window must turn over for a measurement: servers that answer in bursts need more than one."""
_FEWEST = 16
"""Answers that make a measurement."""
_PATIENCE = 10
"""Measurements before the question is asked again; doubles with every answer, up to sixteenfold."""


class Saturation:
    """Measures answers per second while the window turns over, and says when it should change."""

    def __init__(self) -> None:
        self.holds = False
        """The window is being measured, or was found sufficient: it must not grow."""
        self.found = False
        """A narrower window was once as good."""
        self._fastest = float("inf")
        self._count = 0
        self._sum = 0.0
        self._began: float | None = None
        self._full = True
        self._reference: float | None = None
        self._last = 1
        self._calm = 0
        self._patience = _PATIENCE

    def answered(self, latency: float, now: float, *, limit: int, in_flight: int, full: bool) -> int | None:
        """Count one answer; returns the window to use from now on, when it should change."""
        if self._began is None:
            if in_flight <= limit:  # a narrowed window has drained: measure from here
                self._start(now)
            return None
        self._fastest = min(self._fastest, latency)
        self._count += 1
        self._sum += latency
        self._full = self._full and (full or in_flight + 1 >= 0.8 * limit)
        if self._count < max(_TURNOVERS * limit, _FEWEST):
            return None
        elapsed, mean, count, filled = now - self._began, self._sum / self._count, self._count, self._full
        self._start(now)
        if elapsed <= 0 or not filled:
            return None
        return self._judge(limit, count / elapsed, mean)

    def disturbed(self) -> None:
        """A refusal: what was being measured is void."""
        self._began = self._reference = None
        self.holds = False

    def _judge(self, limit: int, rate: float, mean: float) -> int | None:
        suspicious = limit > 1 and mean > _SUSPICIOUS * self._fastest
        if self._reference is not None:
            if rate >= _HOLDS * self._reference:
                self.found = True
                if suspicious:
                    return self._narrow(limit)
                self._rest()
                return None
            self._rest()  # one step too far, or real work from the start
            return self._last
        if self._calm > 0:
            self._calm -= 1
            if self._calm == 0:  # the server may have changed: grow again, from the latency of today
                self.holds = False
                self._fastest = mean
            return None
        if suspicious:
            self._reference = rate
            return self._narrow(limit)
        return None

    def _narrow(self, limit: int) -> int:
        self.holds = True
        self._began = None
        self._last = limit
        return limit // 2

    def _rest(self) -> None:
        self.holds = self.found
        self._reference = None
        self._calm = self._patience
        self._patience = min(16 * _PATIENCE, 2 * self._patience)

    def _start(self, now: float) -> None:
        self._began, self._count, self._sum, self._full = now, 0, 0.0, True
