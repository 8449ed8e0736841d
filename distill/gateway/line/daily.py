"""Quotas by the day: what a teacher has used of them, over all sessions and runs of the workspace.

Answers of earlier sessions are counted from the store's own records, other runs' among them; but not those of other
shards of the same plan, of which each has a part of the quota to itself. What other machines use of the same account is
not known here, and the provider's refusal tells of it. Providers count either the last 24 hours or a day that begins at
a stated hour. Within a session time is the gateway's monotonic clock, so that a clock that is set right does not open a
quota; the hour of the next day is read from the wall clock when the session begins, and again at every new day.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta, timezone

from distill.gateway.store import AnswerStore
from distill.recipe import Limits
from distill.teachers import Teacher

__all__ = ["DAY_S", "Daily", "day_began"]

DAY_S = 86_400.0
_SLICE_S = 600.0


def day_began(starts_at: str | None, wall: float) -> float:
    """Unix time from which on usage counts at Unix time `wall`."""
    if starts_at is None:
        return wall - DAY_S
    match = re.fullmatch(r"(\d\d):(\d\d)(?:([+-])(\d\d):(\d\d))?", starts_at)
    if match is None:
        raise ValueError(f"not a time of day: {starts_at!r}")
    hour, minute, sign, hours, minutes = match.groups()
    offset = timedelta(hours=int(hours or 0), minutes=int(minutes or 0)) * (-1 if sign == "-" else 1)
    now = datetime.fromtimestamp(wall, UTC).astimezone(timezone(offset))
    began = now.replace(hour=int(hour), minute=int(minute), second=0, microsecond=0)
    return (began if began <= now else began - timedelta(days=1)).timestamp()


class Daily:
    """The quotas of one teacher.

    Args:
        used: slices of earlier usage: Unix time at which each begins, requests, tokens.
        clock, wall: seconds that never jump, and Unix time.
    """

    def __init__(
        self,
        limits: Limits,
        used: Iterable[tuple[float, int, int]],
        *,
        clock: Callable[[], float],
        wall: Callable[[], float],
    ) -> None:
        self._requests, self._tokens = limits.requests_per_day, limits.tokens_per_day
        self._starts_at = limits.day_starts_at
        self._clock, self._wall = clock, wall
        now = clock()
        self._ends = self._next_day()
        """When everything that was used stops counting at once; infinity where the last 24 hours count."""
        ago = wall() - now
        self._slices: deque[list[float]] = deque([began - ago, requests, tokens] for began, requests, tokens in used)
        self.requests = sum(int(each[1]) for each in self._slices)
        self.tokens = sum(int(each[2]) for each in self._slices)

    @classmethod
    def of(
        cls,
        limits: Limits,
        teacher: Teacher,
        store: AnswerStore,
        *,
        clock: Callable[[], float],
        wall: Callable[[], float],
        apart: Callable[[str], bool] = lambda run: False,
    ) -> Daily | None:
        """The quotas of one teacher, with what the store knows of their use; None where there are none. `apart` says
        which runs have quotas of their own."""
        if limits.requests_per_day is None and limits.tokens_per_day is None:
            return None
        since = day_began(limits.day_starts_at, wall())
        slices = store.used_since(teacher.provider, teacher.model, since)
        used = [(began, requests, tokens) for began, run, requests, tokens in slices if not apart(run)]
        return cls(limits, used, clock=clock, wall=wall)

    def wait(self, tokens: int, now: float) -> float:
        """Seconds until a request that uses `tokens` fits into the quotas; 0 when it does now."""
        self._forget(now)
        over_requests = 0 if self._requests is None else self.requests + 1 - self._requests
        over_tokens = 0 if self._tokens is None else self.tokens + tokens - self._tokens
        if over_requests <= 0 and (over_tokens <= 0 or not self.tokens):
            return 0.0
        if self._ends != float("inf"):
            return max(0.0, self._ends - now)
        for began, requests, used in self._slices:
            over_requests -= int(requests)
            over_tokens -= int(used)
            if over_requests <= 0 and over_tokens <= 0:
                return max(0.0, began + _SLICE_S + DAY_S - now)
        return DAY_S

    def take(self, tokens: int, now: float) -> None:
        """A request is sent."""
        if not self._slices or now >= self._slices[-1][0] + _SLICE_S:
            self._slices.append([now, 0, 0])
        self._add(1, tokens)

    def settle(self, taken: int, real: int, *, counted: bool = True) -> None:
        """It used `real` tokens where `taken` were taken; not `counted`: the provider did not let it in."""
        if self._slices:
            self._add(0 if counted else -1, real - taken)

    def in_words(self) -> str:
        """What is used, of what."""
        parts: list[str] = []
        if self._requests is not None:
            parts.append(f"{self.requests:,} of {self._requests:,} requests")
        if self._tokens is not None:
            parts.append(f"{self.tokens:,} of {self._tokens:,} tokens")
        return " and ".join(parts)

    def _add(self, requests: int, tokens: int) -> None:
        last = self._slices[-1]
        last[1] += requests
        last[2] += tokens
        self.requests += requests
        self.tokens += tokens

    def _forget(self, now: float) -> None:
        if now >= self._ends:
            self._slices.clear()
            self.requests = self.tokens = 0
            self._ends = self._next_day()
        if self._ends != float("inf"):
            return
        while self._slices and self._slices[0][0] + _SLICE_S + DAY_S <= now:
            _, requests, tokens = self._slices.popleft()
            self.requests -= int(requests)
            self.tokens -= int(tokens)

    def _next_day(self) -> float:
        if self._starts_at is None:
            return float("inf")
        wall = self._wall()
        left = day_began(self._starts_at, wall) + DAY_S - wall
        # A wall clock that runs ahead of ours would end the day a moment early, and end it again.
        return self._clock() + (left if left > 1.0 else left + DAY_S)
