"""Is what answers now what was measured then? The same items, an earlier evaluation's predictions, item by item."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distill.errors import InputError
from distill.evaluate.holdout import Item
from distill.evaluate.intervals import Difference, compare
from distill.evaluate.metrics import AskedMetric, Counted, DrawnMetric, Metric
from distill.io import loads, read_jsonl

__all__ = ["Earlier", "Parity", "measure_parity", "read_earlier"]


@dataclass(frozen=True)
class Earlier:
    """Predictions of one system of an earlier evaluation."""

    system: str
    texts: dict[str, str]
    """Item -> prediction."""
    messages: dict[str, list[dict[str, str]]]


@dataclass(frozen=True, slots=True)
class Parity:
    """`system` as it answers now against `measured`, the system of the earlier evaluation."""

    system: str
    measured: str
    n: int
    equal: float
    """Share of items with the same answer, as text."""
    differences: tuple[Difference, ...]
    """Of every metric: now less then."""
    first_difference: str | None
    """The first item whose answers differ."""


def read_earlier(folder: Path, system: str | None = None) -> Earlier:
    """The predictions in an evaluation's folder.

    Args:
        system: whose; left out: the subject of that evaluation.

    Raises:
        InputError: no evaluation stands there, or it knows no such system.
    """
    file, card = folder / "predictions.jsonl", folder / "scorecard.json"
    if not file.is_file():
        raise InputError("no predictions.jsonl here", path=folder, hint="name the --out folder of an evaluation")
    rows: dict[str, list[dict[str, Any]]] = {}
    for _, row in read_jsonl(file):
        rows.setdefault(str(row.get("system")), []).append(row)
    wanted = system or (str(loads(card.read_bytes())["subject"]) if card.is_file() else next(iter(rows)))
    if wanted not in rows:
        raise InputError(f"holds no predictions of {wanted}", path=file, hint=f"there are: {', '.join(rows)}")
    chosen = rows[wanted]
    return Earlier(
        wanted,
        {str(row["id"]): str(row["prediction"]) for row in chosen},
        {str(row["id"]): row["messages"] for row in chosen},
    )


def measure_parity(
    system: str,
    texts: Sequence[str],
    counted: Mapping[str, Counted],
    items: Sequence[Item],
    metrics: Sequence[Metric],
    earlier: Earlier,
    *,
    seed: int = 0,
) -> Parity:
    """Compare the answers, and the scores of both by every metric.

    Raises:
        InputError: the earlier evaluation asked other questions.
    """
    for item in items:
        if earlier.messages.get(item.id) != list(item.messages):
            raise InputError(
                f"item {item.id} was not asked then, or was another question",
                field="--parity",
                hint="parity is of the same holdout",
            )
    then = [earlier.texts[item.id] for item in items]
    same = [now == before for now, before in zip(texts, then, strict=True)]
    differences = tuple(
        compare(metric, system, counted[metric.name], earlier.system, metric.count(items, then), seed=seed)
        for metric in metrics
        if _of_one_answer(metric)
    )
    first = next((item.id for item, equal in zip(items, same, strict=True) if not equal), None)
    return Parity(system, earlier.system, len(items), sum(same) / len(same), differences, first)


def _of_one_answer(metric: Metric) -> bool:
    """Whether the saved answer is enough to count it again."""
    drawn = isinstance(metric, DrawnMetric) and metric.samples > 1
    return not drawn and not isinstance(metric, AskedMetric)
