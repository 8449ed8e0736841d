"""The proof: what every system scored, how sure that is, and what each gate says."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import orjson

from distill.errors import InputError
from distill.evaluate.holdout import Leak
from distill.evaluate.intervals import Difference, Interval
from distill.io import write_bytes

__all__ = ["Gate", "GateResult", "Latency", "Scorecard", "SystemScore", "check_gates", "parse_gate"]


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
    """Leaf -> `n`, and per metric the share of right items (for macro_f1: of right classes)."""
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


@dataclass(frozen=True, slots=True)
class GateResult:
    gate: str
    value: float
    passed: bool


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
    differences: tuple[Difference, ...] = ()
    leaks: tuple[Leak, ...] | None = None
    """None: the training rows were not at hand."""
    gates: tuple[GateResult, ...] = ()

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


@dataclass(frozen=True, slots=True)
class Gate:
    """`METRIC OP VALUE`, as in `macro_f1:field=intent >= 0.8`. Also `latency_p50` and `latency_p95`, in seconds."""

    text: str
    metric: str
    operator: str
    bound: float


_GATE = re.compile(r"\s*(?P<metric>\S+?)\s*(?P<operator>>=|<=|==|>|<)\s*(?P<bound>[-+]?\d*\.?\d+(?:[eE][-+]?\d+)?)\s*")
_LATENCY = ("latency_p50", "latency_p95")


def parse_gate(text: str) -> Gate:
    """Read a gate.

    Raises:
        InputError: it is not METRIC OP NUMBER.
    """
    match = _GATE.fullmatch(text)
    if match is None:
        raise InputError(f"not a gate: {text!r}", hint="write METRIC >= NUMBER (also <=, >, <, ==)")
    return Gate(text, match["metric"], match["operator"], float(match["bound"]))


def gate_metric(gate: Gate, metrics: Sequence[str]) -> str:
    """The metric that `gate` speaks of: its full name, or the part before the colon when only one has it.

    Raises:
        InputError: none has the name, or several have.
    """
    if gate.metric in metrics or gate.metric in _LATENCY:
        return gate.metric
    found = [name for name in metrics if name.partition(":")[0] == gate.metric]
    if len(found) == 1:
        return found[0]
    if found:
        raise InputError(f"gate {gate.text!r}: several metrics have this name", hint=f"say which: {', '.join(found)}")
    close = difflib.get_close_matches(gate.metric, metrics, n=1, cutoff=0.4)
    hint = f"did you mean {close[0]}? " if close else ""
    raise InputError(f"gate {gate.text!r}: no such metric", hint=f"{hint}counted are: {', '.join(metrics)}")


def check_gates(gates: Sequence[str], score: SystemScore) -> tuple[GateResult, ...]:
    """What each gate says of `score`.

    Raises:
        InputError: a gate names what was not counted.
    """
    results: list[GateResult] = []
    for gate in map(parse_gate, gates):
        name = gate_metric(gate, list(score.metrics))
        if name in _LATENCY:
            if score.latency is None:
                raise InputError(f"gate {gate.text!r}: latency was not measured", hint="set latency_items above 0")
            value = score.latency.p50 if name == "latency_p50" else score.latency.p95
        else:
            value = score.metrics[name].value
        results.append(GateResult(gate.text, value, _holds(value, gate)))
    return tuple(results)


def _holds(value: float, gate: Gate) -> bool:
    return {
        ">=": value >= gate.bound,
        "<=": value <= gate.bound,
        ">": value > gate.bound,
        "<": value < gate.bound,
        "==": abs(value - gate.bound) < 1e-9,
    }[gate.operator]
