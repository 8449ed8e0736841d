"""Gates: conditions that an evaluation has to meet, and by how much one is missed.

    macro_f1:field=intent >= 0.9                       a metric, as it was asked for; `macro_f1` where only one is
    p95_ms <= 800                                      also p50_ms, tokens_per_second, usd_per_1k
    drop(exact_match, release:support@3) <= 0.01       lost against a release's score on the same holdout
    leaf_drop(macro_f1, release:support@3) <= 0.03     the largest loss of any leaf
    leaf_drop(macro_f1, file:runs/a/eval) <= 0.03      the same against a scorecard

A loss is measured in the metric's own unit: 0.03 are three points of a hundred. Every leaf counts, however few items
it has; the note of the result says how many, and which leaf it was.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from distill.errors import InputError
from distill.io import loads

__all__ = [
    "LATENCY",
    "SPEED",
    "Baseline",
    "Gate",
    "GateResult",
    "Scored",
    "baselines_of",
    "cannot_hold",
    "check_gates",
    "gate_metric",
    "parse_gate",
    "read_baseline",
    "require_figures",
    "require_reachable",
    "resolve_file",
]

LATENCY = ("latency_p50", "latency_p95", "p50_ms", "p95_ms")
SPEED = (*LATENCY, "tokens_per_second", "usd_per_1k")
"""Figures that a gate may name beside metrics; none of them has an upper bound."""

_GATE = re.compile(
    r"\s*(?P<metric>\w+\([^()]*\)|\S+?)\s*(?P<operator>>=|<=|==|>|<)\s*(?P<bound>[-+]?\d*\.?\d+(?:[eE][-+]?\d+)?)\s*"
)
_DROP = re.compile(r"(?P<kind>drop|leaf_drop)\(\s*(?P<metric>.+?)\s*,\s*(?P<place>release|file):(?P<what>[^()]+?)\s*\)")
_FORM = "write METRIC >= NUMBER (also <=, >, <, ==)"


@dataclass(frozen=True, slots=True)
class Gate:
    """`METRIC OP VALUE`, as the user wrote it."""

    text: str
    metric: str
    operator: str
    bound: float

    @property
    def drop(self) -> Drop | None:
        """What a loss is measured against, where the gate speaks of one.

        Raises:
            InputError: it speaks of one in a wrong way.
        """
        match = _DROP.fullmatch(self.metric)
        if match is not None:
            return Drop(match["kind"] == "leaf_drop", match["metric"], f"{match['place']}:{match['what']}")
        if re.match(r"(leaf_)?drop\(", self.metric):
            raise InputError(
                f"gate {self.text!r}: against what?", hint="write leaf_drop(METRIC, release:NAME@VERSION) <= 0.03"
            )
        return None

    def holds(self, value: float) -> bool:
        return {
            ">=": value >= self.bound,
            "<=": value <= self.bound,
            ">": value > self.bound,
            "<": value < self.bound,
            "==": abs(value - self.bound) < 1e-9,
        }[self.operator]


@dataclass(frozen=True, slots=True)
class Drop:
    """A loss: of a metric, overall or in the worst leaf, against an earlier score."""

    by_leaf: bool
    metric: str
    against: str


@dataclass(frozen=True, slots=True)
class GateResult:
    gate: str
    value: float
    passed: bool
    short: float = 0.0
    """By how much the value misses the bound; 0 where the gate holds."""
    note: str = ""


@dataclass(frozen=True)
class Baseline:
    """An earlier score that losses are measured against."""

    title: str
    holdout_digest: str
    metrics: Mapping[str, float]
    per_leaf: Mapping[str, Mapping[str, float]]


class Scored(Protocol):
    """What gates look at: a `SystemScore`."""

    @property
    def metrics(self) -> Mapping[str, Any]: ...
    @property
    def per_leaf(self) -> Mapping[str, Mapping[str, float]]: ...
    @property
    def tokens_per_second(self) -> float | None: ...
    @property
    def latency(self) -> Any: ...
    @property
    def cost(self) -> Any: ...


def parse_gate(text: str) -> Gate:
    """Read a gate.

    Raises:
        InputError: it is not METRIC OP NUMBER.
    """
    match = _GATE.fullmatch(text)
    if match is None:
        raise InputError(f"not a gate: {text!r}", hint=_FORM)
    gate = Gate(text, match["metric"], match["operator"], float(match["bound"]))
    _ = gate.drop
    return gate


def gate_metric(gate: Gate, metrics: Sequence[str]) -> str:
    """The metric that `gate` speaks of: its full name, or the part before the colon when only one has it.

    Raises:
        InputError: none has the name, or several have.
    """
    drop = gate.drop
    asked = drop.metric if drop is not None else gate.metric
    if asked in metrics or (asked in SPEED and drop is None):
        return asked
    found = [name for name in metrics if name.partition(":")[0] == asked]
    if len(found) == 1:
        return found[0]
    if found:
        raise InputError(f"gate {gate.text!r}: several metrics have this name", hint=f"say which: {', '.join(found)}")
    known = [*metrics, *SPEED]
    close = difflib.get_close_matches(asked, known, n=1, cutoff=0.4)
    hint = f"did you mean {close[0]}? " if close else ""
    raise InputError(f"gate {gate.text!r}: no such metric", hint=f"{hint}counted are: {', '.join(metrics)}")


def cannot_hold(gate: Gate, low: float, high: float) -> bool:
    """Whether no value from `low` to `high` passes."""
    return {
        ">=": gate.bound > high,
        ">": gate.bound >= high,
        "<=": gate.bound < low,
        "<": gate.bound <= low,
        "==": not low <= gate.bound <= high,
    }[gate.operator]


def require_reachable(gates: Sequence[str], names: Sequence[str], ranges: Mapping[str, tuple[float, float]]) -> None:
    """Make sure that every gate names what is counted, and that some value passes it.

    Args:
        names: what will be counted.
        ranges: least and largest value of what has them.

    Raises:
        InputError: no such metric, or no value can pass; `exact_match >= 90` means 0.9.
    """
    for gate in map(parse_gate, gates):
        name = gate_metric(gate, names)
        unbounded = (0.0, math.inf) if name in SPEED else (-math.inf, math.inf)
        low, high = ranges.get(name, unbounded)
        if gate.drop is not None:
            low, high = low - high, high - low
        if cannot_hold(gate, low, high):
            raise InputError(f"gate {gate.text!r} can never hold", hint=f"the value lies between {low:g} and {high:g}")


def baselines_of(gates: Sequence[str], holdout_digest: str, resolve: Callable[[str], Baseline]) -> dict[str, Baseline]:
    """The earlier scores that `gates` speak of, by the words that name them.

    Args:
        resolve: finds `release:NAME@VERSION` and `file:PATH`.

    Raises:
        InputError: one is not there, or is of another holdout.
    """
    found: dict[str, Baseline] = {}
    for gate in map(parse_gate, gates):
        drop = gate.drop
        if drop is None or drop.against in found:
            continue
        baseline = found[drop.against] = resolve(drop.against)
        if baseline.holdout_digest != holdout_digest:
            raise InputError(
                f"gate {gate.text!r}: {baseline.title} was scored on another holdout",
                hint="losses are measured on the same items: score it on this holdout first",
            )
    return found


def require_figures(gates: Sequence[str], names: Sequence[str], baselines: Mapping[str, Baseline]) -> None:
    """Make sure that the earlier scores hold the figures that losses are measured in, before anything is generated.

    Args:
        names: what will be counted.

    Raises:
        InputError: one does not.
    """
    for gate in map(parse_gate, gates):
        if gate.drop is not None:
            _require_figure(gate, gate.drop, gate_metric(gate, names), baselines[gate.drop.against])


def _require_figure(gate: Gate, drop: Drop, name: str, before: Baseline) -> None:
    if not drop.by_leaf and name not in before.metrics:
        known = ", ".join(before.metrics)
        raise InputError(f"gate {gate.text!r}: {before.title} has no figure of {name}", hint=f"it has: {known}")
    if drop.by_leaf and not any(name in figures for figures in before.per_leaf.values()):
        raise InputError(
            f"gate {gate.text!r}: {before.title} has no figures of {name} by leaf",
            hint="score it again, on items with a leaf: earlier versions did not keep them",
        )


def read_baseline(path: Path, *, subject: str | None = None) -> Baseline:
    """The subject of a scorecard as something to measure losses against.

    Raises:
        InputError: there is no scorecard.
    """
    file = path / "scorecard.json" if path.is_dir() else path
    try:
        card: dict[str, Any] = loads(file.read_bytes())
        system = card["systems"][subject or card["subject"]]
        metrics = {name: float(figure["value"]) for name, figure in system["metrics"].items()}
        return Baseline(str(file), card["holdout_digest"], metrics, system["per_leaf"])
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror}", path=file) from None
    except (ValueError, KeyError, TypeError):
        raise InputError("not a scorecard", path=file) from None


def resolve_file(words: str) -> Baseline:
    """The earlier score that `file:PATH` means.

    Raises:
        InputError: it is not a file's, or there is no scorecard.
    """
    place, _, what = words.partition(":")
    if place != "file":
        raise InputError(f"no {place} is known here: {words}", hint="write file:PATH of a scorecard")
    return read_baseline(Path(what).expanduser())


def check_gates(
    gates: Sequence[str],
    score: Scored,
    figures: Mapping[str, float] | None = None,
    baselines: Mapping[str, Baseline] | None = None,
) -> tuple[GateResult, ...]:
    """What each gate says of `score`, and of further `figures` by their names (`forgetting`, `cost_ratio`, …).

    Raises:
        InputError: a gate names what was not counted.
    """
    results: list[GateResult] = []
    for gate in map(parse_gate, gates):
        value, note = _value(gate, score, figures or {}, baselines or {})
        passed = gate.holds(value)
        short = 0.0 if passed or math.isnan(value) else abs(value - gate.bound)
        results.append(GateResult(gate.text, value, passed, short, note))
    return tuple(results)


def _value(
    gate: Gate, score: Scored, figures: Mapping[str, float], baselines: Mapping[str, Baseline]
) -> tuple[float, str]:
    name = gate_metric(gate, [*score.metrics, *figures])
    drop = gate.drop
    if drop is not None:
        if drop.against not in baselines:
            raise InputError(f"gate {gate.text!r}: {drop.against} is not at hand")
        return _loss(gate, drop, name, score, baselines[drop.against])
    if name in figures:
        return figures[name], ""
    if name in SPEED:
        return _speed(name, score)
    return float(score.metrics[name].value), ""


def _loss(gate: Gate, drop: Drop, name: str, score: Scored, before: Baseline) -> tuple[float, str]:
    _require_figure(gate, drop, name, before)
    if not drop.by_leaf:
        return before.metrics[name] - float(score.metrics[name].value), f"{before.metrics[name]:.4f} in {before.title}"
    losses = {
        leaf: (figures[name] - now[name], int(figures["n"]))
        for leaf, figures in before.per_leaf.items()
        if name in figures and name in (now := score.per_leaf.get(leaf, {}))
    }
    if not losses:
        return math.nan, "no leaf was counted both times"
    leaf, (worst, n) = max(losses.items(), key=lambda item: item[1][0])
    return worst, f"{leaf}, {n} items, the worst of {len(losses)} against {before.title}"


def _speed(name: str, score: Scored) -> tuple[float, str]:
    if name == "tokens_per_second":
        if score.tokens_per_second is None:
            return math.nan, "the answers were not timed: they were stored ones"
        return score.tokens_per_second, ""
    if name == "usd_per_1k":
        usd = getattr(score.cost, "usd", None)
        return (math.nan, "the price is not known") if usd is None else (float(usd), "")
    if score.latency is None:
        return math.nan, "latency was not measured"
    seconds = float(score.latency.p50 if "50" in name else score.latency.p95)
    return (seconds * 1000 if name.endswith("_ms") else seconds), f"of {score.latency.n} items"
