"""Score systems on a holdout: answer (or take saved answers), count, compare, check the gates.

    OUT/predictions.jsonl          one line a system and item: question, answer, prediction, what each metric says of it
    OUT/scorecard.json             the figures
    OUT/general/predictions.jsonl  where a general set is asked too: what base and subject say to it

A system that is scored again on the same questions with the same weights and settings does not answer again: its
saved predictions are counted. So a new metric, a corrected label or another gate costs seconds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from distill.errors import InputError
from distill.evaluate.counting import check_metrics, count_all, draws_of
from distill.evaluate.examples import Example, count_classes, deciding_metric, side_by_side
from distill.evaluate.failures import Failure, Rules
from distill.evaluate.figures import figure_names, figures
from distill.evaluate.forgetting import measure_forgetting
from distill.evaluate.gates import (
    Baseline,
    baselines_of,
    check_gates,
    require_figures,
    require_reachable,
    resolve_file,
)
from distill.evaluate.holdout import Holdout, Item, find_leaks, find_repeats
from distill.evaluate.intervals import interval
from distill.evaluate.metrics import Counted, Metric
from distill.evaluate.metrics.base import JudgeDesk
from distill.evaluate.parity import Earlier, measure_parity
from distill.evaluate.retention import CostRatio, Retention, cost_of, cost_ratio, retention
from distill.evaluate.saved import FAILURES, Answered, Saved, System, answered, line
from distill.evaluate.scorecard import Scorecard, SystemScore
from distill.evaluate.statistics import differences, group_differences, grouped
from distill.evaluate.teacher import TeacherSystem
from distill.evaluate.unsafe import Unsafe
from distill.io import write_jsonl
from distill.io.disk import require_folder
from distill.methods.validation import Validator
from distill.train.data import Conversation

__all__ = ["System", "evaluate"]


async def evaluate(
    systems: Sequence[System],
    holdout: Holdout,
    metrics: Sequence[Metric],
    out: Path,
    *,
    gates: Sequence[str] = (),
    subject: str | None = None,
    against: str | None = None,
    reference: str | None = None,
    desk: JudgeDesk | None = None,
    baseline: Callable[[str], Baseline] | None = None,
    schema: Validator | None = None,
    unsafe: Unsafe | None = None,
    general: Holdout | None = None,
    earlier: Earlier | None = None,
    usd_per_hour: float | None = None,
    training_rows: Iterable[Conversation] | None = None,
    holdout_version: int | None = None,
    seed: int = 0,
    progress: Callable[[str, int, int], None] = lambda system, done, total: None,
) -> Scorecard:
    """Score `systems` and write `out/scorecard.json` and `out/predictions.jsonl`.

    Args:
        systems: in the order of the table; the first is what the others are compared with.
        gates: conditions on `subject`.
        subject: name of the system that gates speak of; left out: `student` where there is one, else the last.
        against: the system that the others are held against in the differences; left out: the first.
        desk: who judges, where a metric asks for a judge.
        baseline: finds the earlier score that a gate names (`release:NAME@VERSION`, `file:PATH`).
        reference: the system whose score is to be kept and whose cost is to be saved; left out: `teacher` where there
            is one.
        schema: what a valid answer satisfies; failure classes are told by it.
        unsafe: the rules by which an answer is unsafe; left out, those that always hold.
        general: questions that the first system and the subject are asked too, for what was forgotten.
        earlier: predictions of an evaluation of the same holdout that the subject's are held against.
        usd_per_hour: the declared price of this machine.
        holdout_version: under which version the holdout is frozen.
        training_rows: where given, the holdout is looked for in them.
        seed: of the resampling.
        progress: system, items answered, items.

    Raises:
        InputError: a gate names no metric that is counted, two systems share a name, or `out` cannot be written. Found
            before anything runs.
    """
    metrics = list({metric.name: metric for metric in metrics}.values())
    names = [system.name for system in systems]
    if len(set(names)) != len(names) or not names:
        raise InputError(f"systems need different names, and one at least: {', '.join(names) or 'none'}")
    subject = _named(subject, names) or ("student" if "student" in names else names[-1])
    against = _named(against, names)
    reference = _named(reference, names) or ("teacher" if "teacher" in names else None)
    by_name = dict(zip(names, systems, strict=True))
    if general is not None and subject == names[0]:
        raise InputError(
            "what was forgotten needs a system before it, such as the base",
            field="general",
            hint="--base, or `base: true` in a recipe",
        )
    further = figure_names(
        [metric.name for metric in metrics],
        general=general is not None,
        earlier=earlier is not None,
        reference=reference not in (None, subject),
    )
    ranges = {metric.name: metric.RANGE for metric in metrics}
    require_reachable(gates, [*ranges, *further], ranges)
    baselines = baselines_of(gates, holdout.digest, baseline or resolve_file)
    require_figures(gates, [*ranges, *further], baselines)
    check_metrics(metrics, holdout.items, systems, desk)
    unsafe = unsafe or Unsafe()
    unsafe.check_desk(desk)
    require_folder(out)
    file = out / "predictions.jsonl"
    saved = Saved(file)
    lines: list[dict[str, Any]] = []
    found: dict[str, Answered] = {}
    counted: dict[str, dict[str, Counted]] = {}
    wrong: dict[str, list[Failure | None]] = {}
    decider, rules = deciding_metric(metrics), Rules(holdout.items, schema)
    for system in systems:
        of = found[system.name] = await answered(system, holdout, saved, progress)
        if not of.reused:  # kept before it is counted: a judge may stop at a budget, a program may not end
            unread = _lines(system.name, of, holdout.items, {}, [None] * len(holdout.items))
            write_jsonl(file, [*lines, *unread, *saved.others(found)])
        draws = await draws_of(system, holdout, metrics, out, progress)
        others = {name: earlier_one.texts for name, earlier_one in found.items() if name != system.name}
        counts = await count_all(
            metrics, holdout.items, of.texts, system=system.name, others=others, draws=draws, desk=desk
        )
        counted[system.name] = counts
        risky = await unsafe.look(holdout.items, of.texts, desk)
        why = _wrong(holdout.items, of, counts.get(decider.name) if decider else None, rules, risky)
        wrong[system.name] = why
        lines += _lines(system.name, of, holdout.items, counts, why)
        # After each system: what was generated survives an interruption of the next.
        write_jsonl(file, [*lines, *saved.others(found)])
    scores = {
        name: _score(
            holdout.items,
            counted[name],
            of,
            wrong[name],
            here=_here(by_name[name]),
            usd_per_hour=usd_per_hour,
            seed=seed,
        )
        for name, of in found.items()
    }
    forgotten = None
    if general is not None:
        before, after = by_name[names[0]], by_name[subject]
        forgotten = await measure_forgetting(before, after, general, out / "general", seed=seed, progress=progress)
    parity = None
    if earlier is not None:
        texts = found[subject].texts
        parity = measure_parity(subject, texts, counted[subject], holdout.items, metrics, earlier, seed=seed)
    kept, ratios = _against(reference, counted, scores, seed)
    risk = sum(failure is not None and failure.kind == "unsafe" for failure in wrong[subject]) / len(holdout.items)
    values = figures(further, subject, unsafe=risk, forgetting=forgotten, parity=parity, kept=kept, ratios=ratios)
    card = Scorecard(
        n=len(holdout.items),
        holdout=holdout.name,
        holdout_digest=holdout.digest,
        holdout_version=holdout_version,
        systems=scores,
        subject=subject,
        definitions={metric.name: metric.definition() for metric in metrics},
        differences=differences(metrics, counted, subject, against, seed=seed),
        group_differences=group_differences(holdout.items, metrics, counted, subject, against, seed=seed),
        leaks=tuple(find_leaks(holdout, training_rows)) if training_rows is not None else None,
        repeats=tuple(find_repeats(holdout)),
        gates=check_gates(gates, scores[subject], values, baselines) if gates else (),
        retention=kept,
        cost_ratios=ratios,
        wrong_by=decider.name if decider else "",
        examples=_examples(holdout.items, found, wrong, subject),
        forgetting=forgotten,
        parity=parity,
        judges_usd={name: round(usd, 6) for name, usd in desk.cost.items()} if desk is not None else {},
    )
    write_jsonl(file, lines)
    card.write(out / "scorecard.json")
    return card


def _named(name: str | None, names: Sequence[str]) -> str | None:
    if name is not None and name not in names:
        raise InputError(f"no system is named {name!r}", hint=f"there are: {', '.join(names)}")
    return name


def _score(
    items: Sequence[Item],
    counts: Mapping[str, Counted],
    of: Answered,
    wrong: Sequence[Failure | None],
    *,
    here: bool,
    usd_per_hour: float | None,
    seed: int,
) -> SystemScore:
    generated = of.generated
    tokens = sum(prediction.tokens for prediction in generated.predictions)
    timed = generated.timed and generated.seconds > 0
    return SystemScore(
        metrics={name: interval(count, seed=seed) for name, count in counts.items()},
        per_leaf=grouped([item.leaf for item in items], counts),
        per_kind=grouped([item.kind for item in items], counts),
        per_difficulty=grouped([item.difficulty for item in items], counts),
        details={name: dict(count.details) for name, count in counts.items() if count.details},
        tokens_per_second=round(tokens / generated.seconds, 1) if timed else None,
        seconds=round(generated.seconds, 2),
        latency=generated.latency,
        reused=of.reused,
        failures=sum(prediction.finish in FAILURES for prediction in generated.predictions),
        about=of.about,
        cost=cost_of(generated, here=here, usd_per_hour=usd_per_hour),
        wrong=count_classes(wrong),
    )


def _here(system: System) -> bool:
    """Whether this machine does the work."""
    return not isinstance(system, TeacherSystem) or system.here


def _lines(
    system: str,
    of: Answered,
    items: Sequence[Item],
    counts: Mapping[str, Counted],
    wrong: Sequence[Failure | None],
) -> list[dict[str, Any]]:
    lines: list[dict[str, Any]] = []
    for n, (item, prediction) in enumerate(zip(items, of.generated.predictions, strict=True)):
        found = {name: float(count.right[n]) for name, count in counts.items() if count.counts[n]}
        said = {name: count.notes[n] for name, count in counts.items() if count.notes and count.notes[n]}
        failure = wrong[n]
        more: dict[str, Any] = {"notes": said} if said else {}
        if failure is not None:
            more["failure"] = {"kind": failure.kind, "why": failure.why}
        lines.append({**line(system, of, item, prediction, found), **more})
    return lines


def _wrong(
    items: Sequence[Item], of: Answered, counted: Counted | None, rules: Rules, unsafe: Sequence[str | None]
) -> list[Failure | None]:
    """Per item: why it is wrong, None where it is not, or where nothing says so."""
    if counted is None:
        return [Failure("unsafe", why) if why is not None else None for why in unsafe]
    return [
        rules.judge(item, prediction, float(right) if counts else None, why)
        for item, prediction, right, counts, why in zip(
            items, of.generated.predictions, counted.right, counted.counts, unsafe, strict=True
        )
    ]


def _examples(
    items: Sequence[Item],
    found: Mapping[str, Answered],
    wrong: Mapping[str, Sequence[Failure | None]],
    subject: str,
) -> tuple[Example, ...]:
    return side_by_side(items, {name: of.texts for name, of in found.items()}, wrong, subject)


def _against(
    reference: str | None,
    counted: Mapping[str, Mapping[str, Counted]],
    scores: Mapping[str, SystemScore],
    seed: int,
) -> tuple[tuple[Retention, ...], tuple[CostRatio, ...]]:
    """What every other system keeps of the reference, and saves."""
    if reference is None:
        return (), ()
    kept: list[Retention] = []
    ratios: list[CostRatio] = []
    for name in scores:
        if name == reference:
            continue
        kept += retention(name, counted[name], reference, counted[reference], seed=seed)
        ours, theirs = scores[name].cost, scores[reference].cost
        ratio = cost_ratio(name, ours, reference, theirs) if ours is not None and theirs is not None else None
        if ratio is not None:
            ratios.append(ratio)
    return tuple(kept), tuple(ratios)
