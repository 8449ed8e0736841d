"""What can be known about the `evaluate:` section before anything is generated or trained."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from distill.assets import find
from distill.engine.check import Finding
from distill.errors import InputError
from distill.evaluate.holdout import read_holdout
from distill.evaluate.metrics import parse_metric
from distill.evaluate.scorecard import Gate, gate_metric, parse_gate
from distill.planning import Slot, Topic
from distill.prompting import PromptBook
from distill.recipe import EvaluateConfig, Recipe

__all__ = ["check_evaluation"]

_SECONDS = ("latency_p50", "latency_p95")


def check_evaluation(recipe: Recipe) -> list[Finding]:
    """Look at holdout, metrics, gates and the teacher's instructions; nothing where the recipe has no such section."""
    if recipe.evaluate is None:
        return []
    findings: list[Finding] = []
    for part in (_holdout, _metrics, _teacher):
        try:
            findings.extend(part(recipe, recipe.evaluate))
        except InputError as error:
            findings.append(Finding("error", "evaluate", str(error)))
    return findings


def _holdout(recipe: Recipe, config: EvaluateConfig) -> Iterator[Finding]:
    holdout = read_holdout(find("data", config.holdout, base=recipe.folder))
    yield Finding("ok", "holdout", f"{len(holdout.items)} items")


def _metrics(recipe: Recipe, config: EvaluateConfig) -> Iterator[Finding]:
    schema: Path | None = find("prompts", config.schema_file, base=recipe.folder) if config.schema_file else None
    names = [parse_metric(text, schema=schema, folder=recipe.folder).name for text in config.metrics]
    gates = [parse_gate(text) for text in config.gates]
    for gate in gates:
        name = gate_metric(gate, names)
        if name in _SECONDS and config.latency_items == 0:
            raise InputError(f"gate {gate.text!r}: latency is not measured", hint="set latency_items above 0")
        if _never_holds(gate, seconds=name in _SECONDS):
            raise InputError(f"gate {gate.text!r} can never hold", hint="metrics lie between 0 and 1, times above 0")
    yield Finding("ok", "metrics", ", ".join(names) or "none")
    if gates:
        yield Finding("ok", "gates", ", ".join(gate.text for gate in gates))


def _teacher(recipe: Recipe, config: EvaluateConfig) -> Iterator[Finding]:
    if config.teacher_system is not None:
        # As the evaluation does: instructions for a holdout have no slot, so an empty one stands in.
        PromptBook(recipe.folder).get(config.teacher_system).render(Slot("eval-0", 0, Topic(("eval",))))
        yield Finding("ok", f"prompt {config.teacher_system}", "renders")


def _never_holds(gate: Gate, *, seconds: bool) -> bool:
    low, high = 0.0, float("inf") if seconds else 1.0
    bound = gate.bound
    return {
        ">=": bound > high,
        ">": bound >= high,
        "<=": bound < low,
        "<": bound <= low,
        "==": not low <= bound <= high,
    }[gate.operator]
