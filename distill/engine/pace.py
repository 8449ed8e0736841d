"""How fast a run goes now, which is what the time left is reckoned from.

Rows that the store answers come a thousand times as fast as rows that are asked for, so the average since the start of
a resumed session would promise an end in seconds. The pace is that of the last minute, and begins anew when the first
request of the session is sent.
"""

from __future__ import annotations

from collections import deque

__all__ = ["Pace"]

_WINDOW_S = 60.0
_APART_S = 0.1


class Pace:
    """Rows a second over a window that moves. Feed it with `note`, in order of time."""

    def __init__(self, window: float = _WINDOW_S) -> None:
        self._window = window
        self._marks: deque[tuple[float, int]] = deque()
        self.asking = False
        """Whether the session has sent a request: until then it only replays, and nothing is known of the time left."""

    def note(self, now: float, kept: int, *, asking: bool) -> None:
        """So many rows are kept at this time, in seconds of any clock."""
        if asking and not self.asking:
            self.asking = True
            self._marks.clear()
        if len(self._marks) > 1 and now - self._marks[-2][0] < _APART_S:
            self._marks.pop()  # a mark for every batch of a fast replay would be thousands
        self._marks.append((now, kept))
        while len(self._marks) > 2 and self._marks[1][0] <= now - self._window:
            self._marks.popleft()

    @property
    def rows_per_second(self) -> float:
        """0 where nothing is known yet."""
        if len(self._marks) < 2:
            return 0.0
        (began, before), (now, after) = self._marks[0], self._marks[-1]
        return (after - before) / (now - began) if now > began else 0.0
