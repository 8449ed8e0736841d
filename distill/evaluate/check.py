"""What can be known about the `evaluate:` section before anything is generated or trained."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from distill.assets import find
from distill.engine.check import Finding
from distill.errors import InputError
from distill.evaluate.figures import figure_names
from distill.evaluate.gates import (
    LATENCY,
    Baseline,
    baselines_of,
    parse_gate,
    require_figures,
    require_reachable,
)
from distill.evaluate.holdout import read_holdout
from distill.evaluate.judge import Desk
from distill.evaluate.metrics import AskedMetric, Metric, parse_metric
from distill.evaluate.metrics.passes import PassAtK
from distill.evaluate.systems import parse_system
from distill.evaluate.unsafe import Unsafe
from distill.planning import Slot, Topic
from distill.prompting import PromptBook
from distill.recipe import EvaluateConfig, Recipe, UnsafeConfig
from distill.teachers import Answer, Request, SamplingParams

__all__ = ["check_evaluation"]


@dataclass(frozen=True, slots=True)
class _Asked:
    """What the caller says of the evaluation to come."""

    allow_code: bool | None
    baseline: Callable[[str], Baseline] | None


def check_evaluation(
    recipe: Recipe, *, allow_code: bool | None = None, baseline: Callable[[str], Baseline] | None = None
) -> list[Finding]:
    """Look at holdout, metrics, gates and the teacher's instructions; nothing where the recipe has no such section.

    Args:
        allow_code: whether programs of a model may run; None: that is said later.
        baseline: finds the earlier scores that gates name; left out, they are not looked for.
    """
    if recipe.evaluate is None:
        return []
    findings: list[Finding] = []
    asked = _Asked(allow_code, baseline)
    for part in (_holdout, _general, _systems, _metrics, _unsafe, _gates, _teacher):
        try:
            findings.extend(part(recipe, recipe.evaluate, asked))
        except InputError as error:
            findings.append(Finding("error", "evaluate", str(error)))
    return findings


def _holdout(recipe: Recipe, config: EvaluateConfig, _: _Asked) -> Iterator[Finding]:
    holdout = read_holdout(find("data", config.holdout, base=recipe.folder))
    yield Finding("ok", "holdout", f"{len(holdout.items)} items")


def _general(recipe: Recipe, config: EvaluateConfig, _: _Asked) -> Iterator[Finding]:
    if config.general is not None:
        general = read_holdout(find("data", config.general, base=recipe.folder))
        if not config.base:
            raise InputError("what was forgotten needs the base beside the student", hint="set base: true")
        yield Finding("ok", "general set", f"{len(general.items)} items")


def _systems(_recipe: Recipe, config: EvaluateConfig, _: _Asked) -> Iterator[Finding]:
    for name, what in config.systems.items():
        spec = parse_system(f"{name}={what}")
        yield Finding("ok", f"system {name}", f"{spec.kind} {spec.what}")


def _metrics(recipe: Recipe, config: EvaluateConfig, asked: _Asked) -> Iterator[Finding]:
    metrics = _parsed(recipe, config)
    items = read_holdout(find("data", config.holdout, base=recipe.folder)).items
    for metric in metrics:
        metric.check(items)
        if isinstance(metric, AskedMetric):
            metric.check_desk(_desk(recipe, config))
        if isinstance(metric, PassAtK) and not asked.allow_code:
            level = "warn" if asked.allow_code is None else "error"
            yield Finding(level, f"metric {metric.name}", "runs programs that a model has written: say --allow-code")
    yield Finding("ok", "metrics", ", ".join(metric.name for metric in metrics) or "none")


def _unsafe(recipe: Recipe, config: EvaluateConfig, _: _Asked) -> Iterator[Finding]:
    rules = Unsafe(config.unsafe, recipe.folder)
    rules.check_desk(_desk(recipe, config))
    if config.unsafe != UnsafeConfig():
        yield Finding("ok", "unsafe answers", f"judged by {rules.judge}" if rules.judge else "by rule")


def _gates(recipe: Recipe, config: EvaluateConfig, asked: _Asked) -> Iterator[Finding]:
    metrics = _parsed(recipe, config)
    ranges = {metric.name: metric.RANGE for metric in metrics}
    reference = config.teacher is not None and recipe.train is not None
    further = figure_names(list(ranges), general=config.general is not None, earlier=False, reference=reference)
    require_reachable(config.gates, [*ranges, *further], ranges)
    for gate in map(parse_gate, config.gates):
        if gate.metric in LATENCY and config.latency_items == 0:
            raise InputError(f"gate {gate.text!r}: latency is not measured", hint="set latency_items above 0")
    if asked.baseline is not None:
        holdout = read_holdout(find("data", config.holdout, base=recipe.folder))
        baselines = baselines_of(config.gates, holdout.digest, asked.baseline)
        require_figures(config.gates, [*ranges, *further], baselines)
    if config.gates:
        yield Finding("ok", "gates", ", ".join(config.gates))


def _parsed(recipe: Recipe, config: EvaluateConfig) -> list[Metric]:
    schema: Path | None = find("prompts", config.schema_file, base=recipe.folder) if config.schema_file else None
    # Whether programs may run is looked at apart from what they need.
    return [parse_metric(text, schema=schema, folder=recipe.folder, allow_code=True) for text in config.metrics]


def _desk(recipe: Recipe, config: EvaluateConfig) -> Desk:
    return Desk(_nobody, PromptBook(recipe.folder), dict.fromkeys(recipe.teachers, SamplingParams()), config.judge)


async def _nobody(request: Request, *, sample: int = 0) -> Answer:
    raise InputError("nobody is asked by a check")


def _teacher(recipe: Recipe, config: EvaluateConfig, _: _Asked) -> Iterator[Finding]:
    if config.teacher_system is not None:
        # As the evaluation does: instructions for a holdout have no slot, so an empty one stands in.
        PromptBook(recipe.folder).get(config.teacher_system).render(Slot("eval-0", 0, Topic(("eval",))))
        yield Finding("ok", f"prompt {config.teacher_system}", "renders")
