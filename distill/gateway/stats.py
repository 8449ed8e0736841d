"""What the gateway counts, per teacher, and what it tells while it works."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Literal, NamedTuple

from distill.gateway.money import usd
from distill.teachers import Usage

__all__ = ["Event", "EventKind", "TeacherStats"]

EventKind = Literal["answered", "refused", "retry", "failed", "paused", "lost", "halted", "batch", "parked", "opened"]


class Event(NamedTuple):
    """One thing that happened, for progress displays and logs. Holds no prompt, answer, key or header."""

    kind: EventKind
    teacher: str
    message: str = ""
    seconds: float = 0.0


@dataclass(slots=True)
class TeacherStats:
    """Live counts of one teacher in this session; read them at any time."""

    sent: int = 0
    """Attempts sent."""
    answered: int = 0
    """Answers received and stored."""
    replayed: int = 0
    """Answers from the store that this run had paid for in an earlier session, or asks again in this one."""
    reused: int = 0
    """Answers from the store that another run had paid for."""
    shared: int = 0
    """Asks that joined a call already under way for the same question."""
    retries: int = 0
    failed: int = 0
    """Calls that failed for good."""
    in_flight: int = 0
    limit: int = 0
    """Requests in flight that the gateway allows at the moment."""
    state: str = ""
    """Why nothing is sent at the moment, and until when; empty while it is asked."""
    parked: int = 0
    """Times it was parked."""
    parked_s: float = 0.0
    moved: int = 0
    """Questions that were its own and went to another teacher of the group."""
    by_status: Counter[int] = field(default_factory=lambda: Counter[int]())
    by_failure: Counter[str] = field(default_factory=lambda: Counter[str]())
    """Failed attempts by failure class."""
    input: int = 0
    output: int = 0
    cached: int = 0
    cache_write: int = 0
    reasoning: int = 0
    cost_pico: int = 0
    reserved_pico: int = 0
    lost_pico: int = 0
    latency: float = 0.0
    """Seconds an answer takes: moving average over about the last fifty."""

    @property
    def cost(self) -> Decimal:
        """USD paid for answers in this session."""
        return usd(self.cost_pico)

    @property
    def reserved(self) -> Decimal:
        """USD set aside for requests in flight."""
        return usd(self.reserved_pico)

    @property
    def unknown_cost(self) -> Decimal:
        """USD that calls without an answer may have cost, at most: timeouts, broken connections, cut bodies."""
        return usd(self.lost_pico)

    def count(self, usage: Usage, cost_pico: int, latency: float) -> None:
        """One answer came."""
        self.answered += 1
        self.input += usage.input
        self.output += usage.output
        self.cached += usage.cached
        self.cache_write += usage.cache_write
        self.reasoning += usage.reasoning
        self.cost_pico += cost_pico
        self.latency = latency if self.answered == 1 else self.latency + 0.04 * (latency - self.latency)

    def as_dict(self) -> dict[str, Any]:
        """JSON values, for metrics files."""
        return {
            "sent": self.sent,
            "answered": self.answered,
            "replayed": self.replayed,
            "reused": self.reused,
            "shared": self.shared,
            "retries": self.retries,
            "failed": self.failed,
            "by_status": {str(status): count for status, count in sorted(self.by_status.items())},
            "by_failure": dict(sorted(self.by_failure.items())),
            "input_tokens": self.input,
            "output_tokens": self.output,
            "cached_tokens": self.cached,
            "cache_write_tokens": self.cache_write,
            "reasoning_tokens": self.reasoning,
            "cost_usd": float(self.cost),
            "unknown_cost_usd": float(self.unknown_cost),
            "concurrency_limit": self.limit,
            "latency_s": round(self.latency, 4),
            **({"parked": self.parked, "parked_s": round(self.parked_s, 1)} if self.parked else {}),
            **({"moved": self.moved} if self.moved else {}),
            **({"state": self.state} if self.state else {}),
        }
