"""`distill train --seeds N`: the same training from several seeds, because one seed proves nothing."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, cast

from distill.cli.console import err
from distill.cli.training import Job, run_training

__all__ = ["spread", "train_seeds"]

_FIGURES = (
    "loss_last",
    "validation_loss",
    "task.best",
    "held_out.accuracy",
    "held_out.margin",
    "held_out.prefers_chosen",
    "held_out.divergence",
)
"""What is compared over seeds, where a training has it."""


def train_seeds(job: Job, count: int, *, overwrite: bool = False, quiet: bool = False) -> dict[str, Any]:
    """Train from `count` seeds, the job's first, each into a folder `seed-<n>`; returns paths, mean and spread.

    Interrupted, the same command leaves finished seeds as they are and goes on with the others.
    """
    found: list[dict[str, Any]] = []
    for seed in range(job.seed, job.seed + count):
        config = job.config.model_copy(update={"seed": None})
        one = replace(job, config=config, seed=seed, out=job.out / f"seed-{seed}")
        err.print(f"seed {seed}")
        found.append(run_training(one, overwrite=overwrite, quiet=quiet).as_json())
    summary = spread(found)
    for name, figures in summary.items():
        values = " ".join(f"{value:.4f}" for value in figures["values"])
        err.print(f"{name}: mean {figures['mean']:.4f}, standard deviation {figures['stdev']:.4f} ({values})")
    return {
        "out": str(job.out),
        "seeds": [{"seed": facts["seed"], "out": facts["out"], "weights": facts["weights"]} for facts in found],
        "figures": summary,
        "seconds": round(sum(facts["seconds"] for facts in found), 1),
        "peak_memory_bytes": max(facts["peak_memory_bytes"] for facts in found),
    }


def spread(found: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Mean, sample standard deviation and values of each figure that every training has."""
    summary: dict[str, dict[str, Any]] = {}
    for name in _FIGURES:
        values = [_at(facts, name) for facts in found]
        known = [value for value in values if value is not None]
        if known and len(known) == len(values):
            deviation = statistics.stdev(known) if len(known) > 1 else 0.0
            summary[name] = {"mean": statistics.mean(known), "stdev": deviation, "values": known}
    return summary


def _at(facts: Mapping[str, Any], name: str) -> float | None:
    value: Any = facts
    for key in name.split("."):
        value = cast("Mapping[str, Any]", value).get(key) if isinstance(value, Mapping) else None
    return None if value is None else float(value)
