"""What a run tells those who watch it: one snapshot type for the console, a notebook and the log."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal

__all__ = ["Progress", "State", "Summary"]

State = Literal["running", "complete", "short", "stopped", "failed"]


@dataclass(frozen=True, slots=True)
class Progress:
    """A run at one moment. Times in seconds, money in USD."""

    target: int
    kept: int
    planned: int
    rejected: dict[str, int]
    failed: int
    pending: int
    round: int
    seconds: float
    rows_per_second: float
    seconds_left: float | None
    in_flight: int
    requests: int
    reused: int
    retries: int
    input_tokens: int
    output_tokens: int
    cost_usd: Decimal
    waiting: tuple[str, ...] = ()
    """Teachers that are parked or given up, and why."""


@dataclass(frozen=True, slots=True)
class Summary:
    """How a session of a run ended. `as_json` is what `distill generate --json` prints."""

    run: Path
    state: State
    reason: str
    counts: dict[str, Any]
    leaves: dict[str, dict[str, Any]]
    short: dict[str, int]
    cost_usd: Decimal
    unknown_cost_usd: Decimal
    reused_cost_usd: Decimal
    """What answers that other runs had paid for would have cost."""
    cost_by_fate_usd: dict[str, Decimal]
    """By kept, rejected, failed and pending, and `verdicts` that filters asked for; adds up to `cost_usd` and
    `reused_cost_usd` together."""
    tokens: dict[str, int]
    teachers: dict[str, dict[str, Any]]
    seconds: float
    resumed_answers: int
    requests: int
    simulated: bool
    already_complete: bool = False
    dataset: dict[str, Any] = field(default_factory=dict[str, Any])
    store_bytes: int = 0
    """Size on disk of the answer store, which all runs of the workspace share."""

    @property
    def exit_code(self) -> int:
        return {"complete": 0, "short": 3, "stopped": 3}.get(self.state, 1)

    @classmethod
    def of_last(cls, run: Path, description: dict[str, Any]) -> Summary | None:
        """The summary of the last session that wrote one to `run.json`; None where there is none of ours."""
        try:
            told: dict[str, Any] = description["summary"]
            return cls(
                run=run,
                state=told["state"],
                reason=told["reason"],
                counts={key: told[key] for key in ("planned", "kept", "rejected", "failed", "pending", "rounds")},
                leaves=description["leaves"],
                short=told["short"],
                cost_usd=_usd(told["cost_usd"]),
                unknown_cost_usd=_usd(told["unknown_cost_usd"]),
                reused_cost_usd=_usd(told["reused_cost_usd"]),
                cost_by_fate_usd={fate: _usd(cost) for fate, cost in told["cost_by_fate_usd"].items()},
                tokens=told["tokens"],
                teachers=told["teachers"],
                seconds=told["seconds"],
                resumed_answers=told["resumed_answers"],
                requests=told["requests"],
                simulated=told.get("simulated", False),
                store_bytes=told.get("store_bytes", 0),
                dataset=told["dataset"],
            )
        except (KeyError, TypeError, AttributeError, ArithmeticError):
            return None

    def with_rows_of(self, other: Summary) -> Summary:
        """This session's end over another one's rows."""
        return replace(
            self,
            counts=other.counts,
            leaves=other.leaves,
            short=other.short,
            cost_by_fate_usd=other.cost_by_fate_usd,
            dataset=other.dataset,
        )

    def as_json(self) -> dict[str, Any]:
        value = {
            "run": str(self.run),
            "state": self.state,
            "reason": self.reason,
            **self.counts,
            "cost_usd": float(self.cost_usd),
            "unknown_cost_usd": float(self.unknown_cost_usd),
            "reused_cost_usd": float(self.reused_cost_usd),
            "cost_by_fate_usd": {fate: float(cost) for fate, cost in self.cost_by_fate_usd.items()},
            "seconds": round(self.seconds, 3),
            "resumed_answers": self.resumed_answers,
            "requests": self.requests,
            "tokens": self.tokens,
            "short": self.short,
            "teachers": self.teachers,
            "dataset": self.dataset,
            "store_bytes": self.store_bytes,
        }
        if self.simulated:
            value["simulated"] = True
        if self.already_complete:
            value["already_complete"] = True
        return value


def _usd(value: Any) -> Decimal:
    return Decimal(str(value))
