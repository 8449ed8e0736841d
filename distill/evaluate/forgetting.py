"""What the student forgot: questions of general knowledge and instructions, asked before and after.

The general set has the layout of a holdout, with short answers that can be verified. An answer is right when it holds
the right one as whole words (metric `contains`), so that a base which answers in sentences is not taken for one that
does not know. The drop is the base's score less the student's, with the interval of the paired difference.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distill.evaluate.holdout import Holdout
from distill.evaluate.intervals import compare
from distill.evaluate.metrics import Counted, Metric, parse_metric
from distill.evaluate.saved import Answered, Saved, System, answered, line
from distill.io import write_jsonl

__all__ = ["METRIC", "Forgetting", "measure_forgetting"]

METRIC = "contains"

_LONGEST = 48


@dataclass(frozen=True, slots=True)
class Forgetting:
    """The general set, before (`base`) and after (`system`). `drop` above 0: something was lost."""

    general: str
    digest: str
    n: int
    metric: str
    base: str
    system: str
    before: float
    after: float
    drop: float
    low: float
    high: float
    p_value: float
    per_leaf: dict[str, dict[str, float]]
    """Leaf -> `n`, `before`, `after`."""


async def measure_forgetting(
    base: System,
    student: System,
    general: Holdout,
    out: Path,
    *,
    seed: int = 0,
    progress: Callable[[str, int, int], None] = lambda system, done, total: None,
) -> Forgetting:
    """Ask both; predictions are kept in `out/predictions.jsonl` and taken from there next time."""
    file = out / "predictions.jsonl"
    saved = Saved(file)
    metric = parse_metric(METRIC)
    lines: list[dict[str, Any]] = []
    counted: list[Counted] = []
    done: dict[str, None] = {}
    for system in (base, student):
        found = await answered(_brief(system), general, saved, _on_general(progress))
        counted.append(metric.count(general.items, found.texts))
        lines += _lines(system.name, found, general, metric, counted[-1])
        done[system.name] = None
        write_jsonl(file, [*lines, *saved.others(done)])
    before, after = counted
    drop = compare(metric, base.name, before, student.name, after, seed=seed)
    return Forgetting(
        general.name,
        general.digest,
        len(general.items),
        metric.name,
        base.name,
        student.name,
        before.value,
        after.value,
        drop.value,
        drop.low,
        drop.high,
        drop.p_value,
        _per_leaf(general, before, after),
    )


def _brief(system: System) -> System:
    """The same system with short answers and no measurement of latency: that belongs to the holdout."""
    if not dataclasses.is_dataclass(system) or isinstance(system, type):
        return system
    known = {field.name for field in dataclasses.fields(system)}
    settings: dict[str, Any] = {"latency_items": 0} if "latency_items" in known else {}
    if "max_tokens" in known:
        settings["max_tokens"] = min(_LONGEST, getattr(system, "max_tokens", _LONGEST))
    return dataclasses.replace(system, **settings)


def _on_general(progress: Callable[[str, int, int], None]) -> Callable[[str, int, int], None]:
    return lambda system, done, total: progress(f"{system}, general set", done, total)


def _lines(name: str, found: Answered, general: Holdout, metric: Metric, counted: Counted) -> list[dict[str, Any]]:
    predictions = found.generated.predictions
    return [
        line(name, found, item, prediction, {metric.name: float(right)})
        for item, prediction, right in zip(general.items, predictions, counted.right, strict=True)
    ]


def _per_leaf(general: Holdout, before: Counted, after: Counted) -> dict[str, dict[str, float]]:
    table: dict[str, dict[str, float]] = {}
    for leaf in sorted({item.leaf for item in general.items} - {""}):
        rows = [position for position, item in enumerate(general.items) if item.leaf == leaf]
        values = {"before": before.right[rows].mean(), "after": after.right[rows].mean()}
        table[leaf] = {"n": len(rows), **{name: round(float(value), 4) for name, value in values.items()}}
    return table
