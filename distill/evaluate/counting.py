"""Every metric of an evaluation, counted for one system: at once, over several draws, or by asking a judge."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from distill.errors import InputError
from distill.evaluate.holdout import Holdout, Item
from distill.evaluate.metrics import AskedMetric, Counted, DrawnMetric, Metric
from distill.evaluate.metrics.base import JudgeDesk, Reference
from distill.evaluate.saved import Saved, System, answered, line
from distill.io import write_jsonl

__all__ = ["TEMPERATURE", "Drawable", "check_metrics", "count_all", "draws_of"]

TEMPERATURE = 0.8
"""Of the answers that `pass_at_k` draws (Chen et al. 2021 find it best for larger k)."""


@runtime_checkable
class Drawable(Protocol):
    """A system that can answer at a temperature."""

    def drawing(self, number: int, temperature: float) -> System:
        """The same system, as it makes its draw `number`."""
        ...


def check_metrics(
    metrics: Sequence[Metric], items: Sequence[Item], systems: Sequence[System], desk: JudgeDesk | None
) -> None:
    """Find what cannot be counted before an hour of generation.

    Raises:
        InputError: an item is not what a metric takes, nobody can judge, or a system cannot be drawn from.
    """
    for metric in metrics:
        metric.check(items)
        if isinstance(metric, AskedMetric) and desk is None:
            raise InputError(
                f"metric {metric.name}: no teacher can be asked", hint="a recipe's evaluation has its teachers"
            )
        if isinstance(metric, AskedMetric) and desk is not None:
            metric.check_desk(desk)
        if isinstance(metric, DrawnMetric) and metric.samples > 1:
            for system in systems:
                if not isinstance(system, Drawable):
                    raise InputError(
                        f"metric {metric.name}: {system.name} gives one answer to a question only",
                        hint="with k=1 its one answer is counted",
                    )


async def count_all(
    metrics: Sequence[Metric],
    items: Sequence[Item],
    texts: Sequence[str],
    *,
    system: str,
    others: Mapping[str, Sequence[str]],
    draws: Sequence[Sequence[str]] = (),
    desk: JudgeDesk | None = None,
) -> dict[str, Counted]:
    """Metric -> what it makes of one system.

    Args:
        others: predictions of the systems that were scored before.
        draws: several answers an item, where a metric needs them.
        desk: who is asked by judging metrics.
    """
    counted: dict[str, Counted] = {}
    for metric in metrics:
        if isinstance(metric, AskedMetric):
            if desk is None:
                raise InputError(f"metric {metric.name}: no teacher can be asked")
            counted[metric.name] = await metric.count_asking(items, texts, Reference(system, others), desk)
        elif isinstance(metric, DrawnMetric) and metric.samples > 1:
            chosen = [given[: metric.samples] for given in draws]
            counted[metric.name] = await asyncio.to_thread(metric.count_draws, items, chosen)
        else:  # embeddings and programs take seconds: the loop goes on
            counted[metric.name] = await asyncio.to_thread(metric.count, items, texts)
    return counted


async def draws_of(
    system: System,
    holdout: Holdout,
    metrics: Sequence[Metric],
    folder: Path,
    progress: Callable[[str, int, int], None],
) -> list[list[str]]:
    """As many answers to each item as the metrics need, kept in `folder` as predictions are."""
    wanted = max((metric.samples for metric in metrics if isinstance(metric, DrawnMetric)), default=1)
    if wanted == 1 or not isinstance(system, Drawable):
        return []
    file = folder / f"draws-{_plain(system.name)}.jsonl"
    saved = Saved(file)
    lines: list[dict[str, Any]] = []
    done: set[str] = set()
    found: list[list[str]] = []
    for number in range(wanted):
        drawn = _Named(system.drawing(number, TEMPERATURE), f"{system.name}, draw {number + 1}")
        of = await answered(drawn, holdout, saved, progress)
        lines += [line(drawn.name, of, i, p, {}) for i, p in zip(holdout.items, of.generated.predictions, strict=True)]
        done.add(drawn.name)
        write_jsonl(file, [*lines, *saved.others(dict.fromkeys(done))])
        found.append(of.texts)
    return [list(texts) for texts in zip(*found, strict=True)]


class _Named:
    """A system under another name."""

    def __init__(self, system: System, name: str) -> None:
        self._system = system
        self.name = name
        self.about = system.about
        self.answer = system.answer


def _plain(name: str) -> str:
    return "".join(letter if letter.isalnum() or letter in "-_." else "-" for letter in name)
