"""A training as a terminal sees it: what it is about, its progress, its result, and how it is stopped."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.text import Text

from distill.cli.console import err, safe
from distill.errors import InputError

if TYPE_CHECKING:
    from distill.recipe import TrainConfig
    from distill.train import Conversation, Progress, TrainData, TrainResult
    from distill.train.task import Score

__all__ = ["Job", "Mix", "one_voice", "plan_training", "run_training"]

_LINE_EVERY = 10.0


@dataclass(frozen=True)
class Mix:
    """General rows among the training rows."""

    path: Path
    share: float
    against: tuple[Path, ...]
    """Holdouts that they must not repeat."""


@dataclass(frozen=True)
class Job:
    """One training as it was asked for."""

    config: TrainConfig
    data: Path
    validation: Path | None
    out: Path
    seed: int
    adapter: Path | None = None
    """Preference training goes on from it."""
    mix: Mix | None = None


def run_training(job: Job, *, overwrite: bool = False, quiet: bool = False) -> TrainResult:
    """Read the rows, train by the method of the settings, tell a person about it on stderr."""
    from distill.train import MarkedData, PairData, TrainData, read_stored, train, train_distillation, train_preferences
    from distill.train.memory import peak_memory
    from distill.train.team import members

    config, before = job.config, peak_memory()
    common: dict[str, Any] = {"seed": job.seed, "progress": _shown(quiet), "overwrite": overwrite}
    if config.method != "sft" and members() > 1:
        raise InputError("trains in one process", field="train.method", hint="several are for method: sft")
    with _stopping() as stop:
        if config.method == "sft":
            rows = _rows(job)
            said = f"{len(rows.train)} rows, {len(rows.validation)} watched"
            err.print(f"training {config.adapter} on {said}", markup=False)
            result = train(config, rows, job.out, stop=stop, score=_score(config), **common)
        elif config.method in ("distill", "on-policy"):
            rows = TrainData.read(job.data, job.validation)
            stored = None if config.distillation.teacher else read_stored(job.data, job.validation)
            err.print(f"{config.method} on {len(rows.train)} rows, {len(rows.validation)} watched", markup=False)
            result = train_distillation(config, rows, job.out, said=stored, stop=stop, **common)
        else:
            kind = MarkedData if config.method == "kto" else PairData
            answers = kind.read(job.data, job.validation)
            things = "marked answers" if config.method == "kto" else "pairs"
            said = f"{len(answers.train)} {things}, {len(answers.validation)} watched"
            err.print(f"{config.method} on {said}", markup=False)
            result = train_preferences(config, answers, job.out, adapter=job.adapter, stop=stop, **common)
    _tell(config, result, before)
    return result


def plan_training(job: Job) -> dict[str, Any]:
    """What the training would need; shown on stderr."""
    from distill.train import MarkedData, PairData, TrainData, plan, read_stored
    from distill.train.bases import start_from
    from distill.train.targets import nothing_said

    config = job.config
    if job.adapter is not None:
        start = start_from(job.adapter, config.model or None)
        held = {"adapter": "qlora" if start.four_bit else "lora", "model": str(start.base.folder), "dtype": start.dtype}
        config = config.model_copy(update=held)
    if config.method == "sft":
        rows = _rows(job)
    else:
        kinds = {"distill": TrainData, "on-policy": TrainData, "kto": MarkedData}
        rows = kinds.get(config.method, PairData).read(job.data, job.validation)
    if config.method == "distill" and not (config.distillation.teacher or read_stored(job.data)):
        raise nothing_said()
    found = plan(config, rows, seed=job.seed)
    for name, size in found.parts.items():
        err.print(f"{name:<12}{size / 1e9:8.2f} GB")
    verdict = "fits" if found.fits else "does not fit"
    err.print(f"{'peak':<12}{found.bytes / 1e9:8.2f} GB, {verdict} into {found.available / 1e9:.1f} GB")
    for name, size in found.changes:
        err.print(f"  with {name}: {size / 1e9:.2f} GB")
    about = f"{found.steps} steps of {config.batch_size} rows, {found.micro_batch} at once, {found.dtype}"
    err.print(about, markup=False)
    if (time := found.seconds) is not None:
        spent = "" if time.processor is None else f"{time.processor:.0f} s of the processor's time: "
        err.print(
            f"{spent}{time.least:.0f} to {time.most:.0f} s, about {time.usual:.0f} if it stays as busy as it is now"
        )
    return found.as_json()


def _rows(job: Job) -> TrainData:
    """The rows of supervised training, with the general ones that `--mix` adds.

    They pass the filters that `dataset.mix` of a recipe puts them through: exact copies of each other go, and what the
    holdouts hold.
    """
    from distill.train import TrainData

    rows = TrainData.read(job.data, job.validation)
    if job.mix is None:
        return rows
    from distill.filters.selection.mixing import general_rows, wanted_rows
    from distill.recipe import EvalSet
    from distill.train.data import conversation

    sets = [EvalSet(path=str(path.expanduser().resolve())) for path in job.mix.against]
    path = job.mix.path.expanduser()
    wanted = wanted_rows(len(rows.train), job.mix.share)
    mixed = general_rows(path, wanted, folder=Path.cwd(), eval_sets=sets)
    lost = "".join(f", {count} left out by {name}" for name, count in mixed.rejected.items())
    err.print(safe(f"{len(mixed.records)} general rows of {path.name}{lost}"))
    if mixed.note:
        err.print(safe(mixed.note))
    return rows.mixed((conversation(record, path=path) for record in mixed.records), path.name)


def _score(config: TrainConfig) -> Score | None:
    """The task metric as training wants it: a function of rows and answers."""
    if config.watch is None:
        return None
    from distill.evaluate import Item, parse_metric
    from distill.teachers.reading import split_thinking

    metric = parse_metric(config.watch.metric)

    def score(rows: Sequence[Conversation], answers: Sequence[str]) -> float:
        right = [split_thinking(row.turns[-1]["content"])[0] for row in rows]
        items = [Item(row.where or str(i), row.prompt, right[i]) for i, row in enumerate(rows)]
        return metric.count(items, answers).value

    return score


def _tell(config: TrainConfig, result: TrainResult, before: int) -> None:
    """
    Args:
        before: the most memory that was held before this training.
    """
    facts = result.facts
    peak = facts["peak_memory_bytes"]
    held = f"peak {peak / 1e9:.1f} GB" if peak > before else f"peak below the {before / 1e9:.1f} GB held before"
    err.print(
        f"{facts['steps']} steps, loss {facts['loss_first']} to {facts['loss_last']}, "
        f"{facts['tokens_per_second']:.0f} tokens/s, {facts['train_seconds']:.0f} s, "
        f"{held}, {facts['dtype']}"
    )
    if task := facts.get("task"):
        err.print(f"{task['metric']} on validation rows: best {task['best']:.3f} at step {task['best_step']}, kept")
    if facts.get("advice"):
        err.print(Text(facts["advice"], style="yellow"))
    if held_out := facts.get("held_out"):
        err.print(_held_out(held_out))
    rows = "pairs" if config.method in ("dpo", "orpo") else "rows"
    if facts["dropped_long"]:
        left_out = f"{facts['dropped_long']} {rows} longer than {config.max_length} tokens were left out"
        err.print(Text(left_out, style="yellow"))
    if facts.get("divided_rows"):
        err.print(f"{facts['divided_rows']} longer ones were split between turns")
    if facts.get("micro_batch_reason"):
        err.print(Text(facts["micro_batch_reason"], style="yellow"))
    if facts.get("thinking_lost"):
        lost = f"the chat template takes the reasoning out of {facts['thinking_lost']} answers: it is not trained"
        err.print(Text(lost, style="yellow"))
    if facts.get("rows_apart"):
        apart = f"the teacher split {facts['rows_apart']} answers into other tokens: they learn by cross-entropy alone"
        err.print(Text(apart, style="yellow"))
    if facts.get("dropped_equal"):
        err.print(Text(f"{facts['dropped_equal']} pairs of equal answers were left out", style="yellow"))
    err.print("one example, trained tokens between ⟦ and ⟧:")
    err.print(safe(facts["example"]["text"], limit=1200))
    err.print(safe(str(result.adapter or result.model)))


def _held_out(figures: dict[str, Any]) -> str:
    """What the rows that were not trained on say, in one line."""
    if "divergence" in figures:
        before, after = figures["divergence_before"], figures["divergence"]
        return f"divergence from the teacher on validation rows: {before:.4f} nats a token before, {after:.4f} after"
    said = f"accuracy {figures['accuracy']:.3f}"
    if figures["margin"] is not None:
        said += f", margin {figures['margin']:.3f}"
    if "answers" in figures:
        return f"{figures['answers']} held-out answers: {said}"
    likely = f"{figures['prefers_chosen_before']:.3f} before, {figures['prefers_chosen']:.3f} after"
    return f"{figures['pairs']} held-out pairs: {said}; chosen answer the more probable: {likely}"


def _shown(quiet: bool) -> Callable[[Progress], None]:
    """Shows each update: a bar on a terminal, else a line every ten seconds."""
    import time

    last = 0.0

    def show(p: Progress) -> None:
        nonlocal last
        now = time.monotonic()
        if quiet or (not err.is_terminal and now - last < _LINE_EVERY and p.step < p.steps):
            return
        last = now
        left = f"{p.seconds_left:.0f} s left" if p.seconds_left is not None else ""
        watched = f"  validation {p.validation_loss:.3f}" if p.validation_loss is not None else ""
        watched += "".join(f"  {name} {value:.3f}" for name, value in p.figures.items())
        text = f"step {p.step}/{p.steps}  loss {p.loss or 0:.3f}{watched}  {p.tokens_per_second:.0f} tokens/s  {left}"
        if err.is_terminal:
            err.print(f"\r\x1b[2K{text}", end="" if p.step < p.steps else "\n", markup=False)
        else:
            err.print(text, markup=False)

    return show


@contextlib.contextmanager
def one_voice() -> Generator[None]:
    """Of several processes of one training only the first speaks; what fails is told by the one that fails."""
    from distill.train.team import leads

    err.quiet = not leads()
    try:
        yield
    finally:
        err.quiet = False


@contextlib.contextmanager
def _stopping() -> Generator[Callable[[], bool]]:
    """The first SIGINT or SIGTERM saves and stops after the current update, the second leaves at once."""
    seen = 0

    def count(*_: object) -> None:
        nonlocal seen
        seen += 1
        if seen > 1:
            raise KeyboardInterrupt
        err.print("stopping after this step; what is trained is saved (again to leave at once)")

    before = {number: signal.signal(number, count) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: seen > 0
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
