"""Where a run stands, for those who watch it: a `Progress` for people, metrics for Prometheus."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from decimal import Decimal

from distill.engine.accounting import Account
from distill.engine.events import Progress, State
from distill.engine.exposition import Latencies, exposition
from distill.engine.pace import Pace
from distill.gateway import Event, Gateway, TeacherStats

__all__ = ["Standing"]


class Standing:
    """The figures of one session, read at any time.

    Args:
        clock: time in seconds.
    """

    def __init__(self, account: Account, *, target: int, clock: Callable[[], float]) -> None:
        self._account, self._target, self._clock = account, target, clock
        self._started = clock()
        self._pace = Pace()
        self._latencies: dict[str, Latencies] = {}
        self.gateway: Gateway | None = None
        """Set once the session has one."""
        self.state: State = "running"

    @property
    def seconds(self) -> float:
        """Since the session began."""
        return self._clock() - self._started

    def heard(self, event: Event) -> None:
        """Take note of an answer's time."""
        if event.kind == "answered":
            self._latencies.setdefault(event.teacher, Latencies()).note(event.seconds)

    def decided(self) -> None:
        """Rows were decided: the pace is told."""
        self._pace.note(self._clock(), self._account.kept, asking=any(each.sent for each in self._teachers().values()))

    def progress(self) -> Progress:
        """A snapshot."""
        self.decided()
        account, rate = self._account, self._pace.rows_per_second
        stats = list(self._teachers().values())
        return Progress(
            target=self._target,
            kept=account.kept,
            planned=account.planned,
            rejected={name: sum(reasons.values()) for name, reasons in account.rejected.items()},
            failed=account.failed_total,
            pending=account.pending,
            round=account.rounds,
            seconds=self.seconds,
            rows_per_second=rate,
            seconds_left=(self._target - account.kept) / rate if rate > 0 and self._pace.asking else None,
            in_flight=sum(teacher.in_flight for teacher in stats),
            requests=sum(teacher.sent for teacher in stats),
            reused=sum(teacher.replayed + teacher.reused for teacher in stats),
            retries=sum(teacher.retries for teacher in stats),
            input_tokens=sum(teacher.input for teacher in stats),
            output_tokens=sum(teacher.output for teacher in stats),
            cost_usd=self.gateway.spent if self.gateway is not None else Decimal(0),
            waiting=tuple(f"{name} {each.state}" for name, each in self._teachers().items() if each.state),
        )

    def exposition(self, *, run: str) -> str:
        """The same and more in Prometheus's text format."""
        return exposition(
            self.progress(),
            self._account,
            self._teachers(),
            self._latencies,
            labels={"run": run},
            state=self.state,
        )

    def _teachers(self) -> Mapping[str, TeacherStats]:
        return self.gateway.stats if self.gateway is not None else {}
