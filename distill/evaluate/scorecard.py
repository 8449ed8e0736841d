"""The proof: what every system scored, how sure that is, and what each gate says."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from distill.evaluate.gates import GateResult, check_gates, gate_metric, parse_gate
from distill.evaluate.holdout import Leak, Repeat
from distill.evaluate.intervals import Difference, Interval
from distill.evaluate.statistics import GroupDifference
from distill.io import write_bytes

if TYPE_CHECKING:
    from distill.evaluate.examples import Example
    from distill.evaluate.forgetting import Forgetting
    from distill.evaluate.parity import Parity
    from distill.evaluate.retention import Cost, CostRatio, Retention

__all__ = [
    "GateResult",
    "Latency",
    "Scorecard",
    "SystemScore",
    "check_gates",
    "gate_metric",
    "parse_gate",
]


@dataclass(frozen=True, slots=True)
class Latency:
    """Seconds from a prompt to its whole answer, one request at a time."""

    p50: float
    p95: float
    n: int
    how: str


@dataclass(frozen=True)
class SystemScore:
    """One system on the holdout."""

    metrics: dict[str, Interval]
    per_leaf: dict[str, dict[str, float]]
    """Leaf -> `n`, and per metric the mean of the items' figures (for macro_f1: the share of right classes)."""
    per_kind: dict[str, dict[str, float]]
    tokens_per_second: float | None
    """Of batched generation: answer tokens over wall time, prompts included."""
    seconds: float
    latency: Latency | None = None
    reused: bool = False
    """Predictions were taken from an earlier evaluation."""
    failures: int = 0
    """Items without an answer (a teacher's errors); they count as wrong."""
    about: dict[str, Any] = field(default_factory=dict[str, Any])
    """What was scored: model, adapter digest, template digest, number type, length limit."""
    cost: Cost | None = None
    wrong: dict[str, int] = field(default_factory=dict[str, int])
    """Class of failure -> wrong items."""
    per_difficulty: dict[str, dict[str, float]] = field(default_factory=dict[str, dict[str, float]])
    details: dict[str, dict[str, Any]] = field(default_factory=dict[str, dict[str, Any]])
    """Metric -> what its value is made of: classes with the confusion matrix, fields, terms, votes."""


@dataclass(frozen=True)
class Scorecard:
    """Everything an evaluation found."""

    n: int
    holdout: str
    holdout_digest: str
    systems: dict[str, SystemScore]
    """In the order of the report; the last local student is what gates speak of."""
    subject: str
    """The system that gates are checked on."""
    definitions: dict[str, str]
    holdout_version: int | None = None
    """Under which the holdout is frozen in its workspace; None where nobody looks after it."""
    differences: tuple[Difference, ...] = ()
    group_differences: tuple[GroupDifference, ...] = ()
    """Subject against reference by leaf and difficulty; no claim where a group has too few items."""
    leaks: tuple[Leak, ...] | None = None
    """None: the training rows were not at hand."""
    repeats: tuple[Repeat, ...] = ()
    """Items that ask what another one asks."""
    gates: tuple[GateResult, ...] = ()
    retention: tuple[Retention, ...] = ()
    """Of every other system, against the reference (the teacher)."""
    cost_ratios: tuple[CostRatio, ...] = ()
    wrong_by: str = ""
    """The metric that says which items are wrong."""
    examples: tuple[Example, ...] = ()
    """Wrong answers of the subject, and what the others said."""
    forgetting: Forgetting | None = None
    parity: Parity | None = None
    judges_usd: dict[str, float] = field(default_factory=dict[str, float])
    """Judge -> what its answers cost, also where they were stored ones."""

    @property
    def passed(self) -> bool:
        return all(gate.passed for gate in self.gates)

    def as_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return orjson.loads(orjson.dumps(asdict(self)))

    def write(self, path: Path) -> None:
        """Write `scorecard.json`."""
        write_bytes(path, orjson.dumps(asdict(self), option=orjson.OPT_INDENT_2))

    def rows(self) -> list[dict[str, Any]]:
        """One row a system for a table: name, metrics as `value [low, high]`, latency, speed."""
        table: list[dict[str, Any]] = []
        for name, score in self.systems.items():
            row: dict[str, Any] = {"system": name}
            for metric, figure in score.metrics.items():
                row[metric] = f"{figure.value:.3f} [{figure.low:.3f}, {figure.high:.3f}]"
            row["p50 ms"] = f"{score.latency.p50 * 1000:,.0f}" if score.latency else "–"
            row["p95 ms"] = f"{score.latency.p95 * 1000:,.0f}" if score.latency else "–"
            row["tokens/s"] = f"{score.tokens_per_second:,.0f}" if score.tokens_per_second else "–"
            table.append(row)
        return table
