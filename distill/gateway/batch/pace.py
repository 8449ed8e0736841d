"""When a batch leaves, how large it is, and when there is no time left for batches: arithmetic without side effects."""

from __future__ import annotations

from collections.abc import Sequence

from distill.gateway.batch.batching import Asked
from distill.recipe import TeacherConfig
from distill.teachers import BatchTeacher

__all__ = ["Pace"]

_FRAME_BYTES = 160  # what a line has beside the wire: custom id, method, address
_CANCEL_S = 600.0  # a provider may take that long to break a batch off
_GUESS_S = 10.0  # what an online answer takes, as long as none has come
_FIRST_PAUSE_S = 30.0
_LONGEST_PAUSE_S = 900.0


class Pace:
    """For one teacher; times in seconds of any monotonic clock."""

    def __init__(self, config: TeacherConfig, teacher: BatchTeacher, now: float) -> None:
        self._config = config
        self._most = min(config.batch.max_requests, teacher.most_requests)
        self._most_bytes = teacher.most_bytes
        self._not_before = float("-inf")
        self._pause = _FIRST_PAUSE_S
        self._deadline = now + config.batch.within_hours * 3600
        self.online = config.mode == "online" or (config.mode == "auto" and config.batch.discount == 0)
        """Nothing goes by batch, or not any more."""

    def leaving(self, gathered: Sequence[Asked], since: float, now: float, *, still: bool) -> int:
        """How many of the gathered questions leave as one batch now.

        Args:
            since: when the first of them came.
            still: nothing else of the run is under way.
        """
        if not gathered or now < self._not_before:
            return 0
        size = count = 0
        for one in gathered[: self._most]:
            size += one.member.size + _FRAME_BYTES
            if size > self._most_bytes and count:
                break
            count += 1
        full = count < len(gathered) or count >= self._most
        return count if full or still or now - since >= self._config.batch.linger_s else 0

    def too_much(self, requests: int, now: float) -> tuple[int, float]:
        """The provider has too much in its queue to take so many: fewer, later. Returns how many and after how long."""
        self._most = max(1, min(self._most, requests) // 2)
        wait = self._pause
        self._not_before = now + wait
        self._pause = min(2 * wait, _LONGEST_PAUSE_S)
        return self._most, wait

    def accepted(self) -> None:
        """A batch was carried out."""
        self._pause = _FIRST_PAUSE_S

    def no_time_left(self, waiting: int, now: float) -> bool:
        """Whether everything is online from this moment on: under `auto`, when the deadline leaves no more time for
        batches than breaking them off takes, and asking everybody online after it."""
        if self.online or self._config.mode != "auto":
            return self.online
        rate = self._config.max_concurrency / _GUESS_S
        if self._config.limits.requests_per_minute is not None:
            rate = min(rate, self._config.limits.requests_per_minute / 60)
        self.online = self._deadline - now <= _CANCEL_S + waiting / rate
        return self.online

    def too_few(self, gathered: int) -> bool:
        """Whether `auto` asks these online although there is time, because that takes seconds."""
        return self._config.mode == "auto" and gathered < self._config.batch.min_requests
