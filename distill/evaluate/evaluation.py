"""Score systems on a holdout: answer (or take saved answers), count, compare, check the gates.

    OUT/predictions.jsonl   one line a system and item: question, answer, prediction, what each metric says of it
    OUT/scorecard.json      the figures

A system that is scored again on the same questions with the same weights and settings does not answer again: its
saved predictions are counted. So a new metric, a corrected label or another gate costs seconds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from distill.errors import FailureClass, InputError
from distill.evaluate.generation import Generated, Prediction
from distill.evaluate.holdout import Holdout, Item, find_leaks
from distill.evaluate.intervals import Difference, compare, interval
from distill.evaluate.metrics import Counted, Metric
from distill.evaluate.scorecard import Latency, Scorecard, SystemScore, check_gates, gate_metric, parse_gate
from distill.io import digest, read_jsonl, write_jsonl
from distill.train.data import Conversation

__all__ = ["System", "evaluate"]

_FAILURES = {failure.value for failure in FailureClass} - {"length"}


class System(Protocol):
    """Something that answers: a `Student`, or a `TeacherSystem`."""

    @property
    def name(self) -> str: ...

    def about(self) -> dict[str, Any]:
        """What is scored, as JSON values: equal means the same predictions."""
        ...

    async def answer(self, items: Sequence[Item], progress: Callable[[int], None]) -> Generated: ...


async def evaluate(
    systems: Sequence[System],
    holdout: Holdout,
    metrics: Sequence[Metric],
    out: Path,
    *,
    gates: Sequence[str] = (),
    subject: str | None = None,
    training_rows: Iterable[Conversation] | None = None,
    seed: int = 0,
    progress: Callable[[str, int, int], None] = lambda system, done, total: None,
) -> Scorecard:
    """Score `systems` and write `out/scorecard.json` and `out/predictions.jsonl`.

    Args:
        systems: in the order of the table; the first is what the others are compared with.
        gates: conditions on `subject`.
        subject: name of the system that gates speak of; left out: `student` where there is one, else the last.
        training_rows: where given, the holdout is looked for in them.
        seed: of the resampling.
        progress: system, items answered, items.

    Raises:
        InputError: a gate names no metric that is counted, or two systems share a name. Found before anything runs.
    """
    names = [system.name for system in systems]
    if len(set(names)) != len(names) or not names:
        raise InputError(f"systems need different names, and one at least: {', '.join(names) or 'none'}")
    for gate in gates:
        gate_metric(parse_gate(gate), [metric.name for metric in metrics])
    subject = subject or ("student" if "student" in names else names[-1])
    for metric in metrics:  # an answer that a metric cannot read is found before an hour of generation
        metric.count(holdout.items, [item.answer for item in holdout.items])
    file = out / "predictions.jsonl"
    saved = _Saved(file)
    lines: list[dict[str, Any]] = []
    scores: dict[str, SystemScore] = {}
    counted: dict[str, dict[str, Counted]] = {}
    for system in systems:
        about = system.about()
        key = digest([about, holdout.prompts_digest])
        generated, reused = saved.get(system.name, key, holdout.items), True
        if generated is None:
            reused = False
            progress(system.name, 0, len(holdout.items))
            generated = await system.answer(holdout.items, partial(_tell, progress, system.name, len(holdout.items)))
        texts = [prediction.text for prediction in generated.predictions]
        counts = {metric.name: metric.count(holdout.items, texts) for metric in metrics}
        counted[system.name] = counts
        scores[system.name] = _score(holdout.items, counts, generated, about, reused=reused, seed=seed)
        lines += _lines(system.name, key, holdout.items, generated, counts)
        # After each system: what was generated survives an interruption of the next.
        write_jsonl(file, [*lines, *saved.others(scores)])
    card = Scorecard(
        n=len(holdout.items),
        holdout=holdout.name,
        holdout_digest=holdout.digest,
        systems=scores,
        subject=subject,
        definitions={metric.name: metric.definition() for metric in metrics},
        differences=_differences(metrics, counted, subject, seed),
        leaks=tuple(find_leaks(holdout, training_rows)) if training_rows is not None else None,
        gates=check_gates(gates, scores[subject]) if gates else (),
    )
    write_jsonl(file, lines)
    card.write(out / "scorecard.json")
    return card


def _tell(progress: Callable[[str, int, int], None], system: str, total: int, done: int) -> None:
    progress(system, done, total)


class _Saved:
    """Predictions of an earlier evaluation."""

    def __init__(self, file: Path) -> None:
        self._rows: dict[str, list[dict[str, Any]]] = {}
        try:
            for _, row in read_jsonl(file) if file.is_file() else ():
                self._rows.setdefault(str(row.get("system")), []).append(row)
        except InputError:
            self._rows = {}  # damaged: everything is answered again

    def get(self, system: str, key: str, items: Sequence[Item]) -> Generated | None:
        rows = {row["id"]: row for row in self._rows.get(system, ()) if row.get("key") == key}
        if any(item.id not in rows for item in items):
            return None
        ordered = [rows[item.id] for item in items]
        if any(row["finish"] in _FAILURES for row in ordered):
            return None  # a failed request is worth another try
        predictions = [Prediction(row["prediction"], row["tokens"], row["finish"]) for row in ordered]
        run: Mapping[str, Any] = ordered[0]["run"]
        return Generated(predictions, run["seconds"], Latency(**run["latency"]) if run["latency"] else None)

    def others(self, done: Mapping[str, Any]) -> list[dict[str, Any]]:
        return [row for system, rows in self._rows.items() if system not in done for row in rows]


def _score(
    items: Sequence[Item],
    counts: Mapping[str, Counted],
    generated: Generated,
    about: dict[str, Any],
    *,
    reused: bool,
    seed: int,
) -> SystemScore:
    tokens = sum(prediction.tokens for prediction in generated.predictions)
    return SystemScore(
        metrics={name: interval(count, seed=seed) for name, count in counts.items()},
        per_leaf=_grouped([item.leaf for item in items], counts),
        per_kind=_grouped([item.kind for item in items], counts),
        tokens_per_second=round(tokens / generated.seconds, 1) if generated.seconds > 0 else None,
        seconds=round(generated.seconds, 2),
        latency=generated.latency,
        reused=reused,
        failures=sum(prediction.finish in _FAILURES for prediction in generated.predictions),
        about=about,
    )


def _grouped(groups: Sequence[str], counts: Mapping[str, Counted]) -> dict[str, dict[str, float]]:
    table: dict[str, dict[str, float]] = {}
    for group in sorted(set(groups) - {""}):
        rows = [position for position, name in enumerate(groups) if name == group]
        shares = {name: round(float(count.right[rows].mean()), 4) for name, count in counts.items()}
        table[group] = {"n": len(rows), **shares}
    return table


def _lines(
    system: str, key: str, items: Sequence[Item], generated: Generated, counts: Mapping[str, Counted]
) -> list[dict[str, Any]]:
    latency = generated.latency
    how = {"p50": latency.p50, "p95": latency.p95, "n": latency.n, "how": latency.how} if latency else None
    run = {"seconds": generated.seconds, "latency": how}
    return [
        {
            "id": item.id,
            "system": system,
            "leaf": item.leaf,
            "kind": item.kind,
            "messages": list(item.messages),
            "answer": item.answer,
            "prediction": prediction.text,
            "finish": prediction.finish,
            "tokens": prediction.tokens,
            "metrics": {name: float(count.right[position]) for name, count in counts.items()},
            "key": key,
            "run": run,
        }
        for position, (item, prediction) in enumerate(zip(items, generated.predictions, strict=True))
    ]


def _differences(
    metrics: Sequence[Metric], counted: Mapping[str, Mapping[str, Counted]], subject: str, seed: int
) -> tuple[Difference, ...]:
    ours = counted[subject]
    return tuple(
        compare(metric, subject, ours[metric.name], other, counts[metric.name], seed=seed)
        for other, counts in counted.items()
        if other != subject
        for metric in metrics
    )
