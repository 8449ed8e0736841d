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

if TYPE_CHECKING:
    from distill.recipe import TrainConfig
    from distill.train import Conversation, Progress, TrainData, TrainResult
    from distill.train.task import Score

__all__ = ["Job", "plan_training", "run_training"]

_LINE_EVERY = 10.0


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
    folder: Path = Path()
    """Where relative paths of the settings start."""


def run_training(job: Job, *, overwrite: bool = False, quiet: bool = False) -> TrainResult:
    """Read the rows, train by the method of the settings, tell a person about it on stderr."""
    from distill.train import PairData, train, train_preferences

    config = job.config
    common: dict[str, Any] = {"seed": job.seed, "progress": _shown(quiet), "overwrite": overwrite}
    with _stopping() as stop:
        if config.method == "sft":
            rows = _rows(job)
            said = f"{len(rows.train)} rows, {len(rows.validation)} watched"
            err.print(f"training {config.adapter} on {said}", markup=False)
            result = train(config, rows, job.out, stop=stop, score=_score(config), **common)
        else:
            pairs = PairData.read(job.data, job.validation)
            said = f"{len(pairs.train)} pairs, {len(pairs.validation)} watched"
            err.print(f"{config.method} on {said}", markup=False)
            result = train_preferences(config, pairs, job.out, adapter=job.adapter, stop=stop, **common)
    _tell(config, result)
    return result


def plan_training(job: Job) -> dict[str, Any]:
    """What the training would need; shown on stderr."""
    from distill.train import PairData, plan
    from distill.train.bases import start_from

    config = job.config
    if job.adapter is not None:
        start = start_from(job.adapter, config.model or None)
        held = {"adapter": "qlora" if start.four_bit else "lora", "model": str(start.base.folder), "dtype": start.dtype}
        config = config.model_copy(update=held)
    rows = _rows(job) if config.method == "sft" else PairData.read(job.data, job.validation)
    found = plan(config, rows, seed=job.seed)
    for name, size in found.parts.items():
        err.print(f"{name:<12}{size / 1e9:8.2f} GB")
    verdict = "fits" if found.fits else "does not fit"
    err.print(f"{'peak':<12}{found.bytes / 1e9:8.2f} GB, {verdict} into {found.available / 1e9:.1f} GB")
    for name, size in found.changes:
        err.print(f"  with {name}: {size / 1e9:.2f} GB")
    about = f"{found.steps} steps of {config.batch_size} rows, {found.micro_batch} at once, {found.dtype}"
    err.print(f"{about}: about {found.seconds or 0:.0f} s on this machine as busy as it is now")
    return found.as_json()


def _rows(job: Job) -> TrainData:
    """The rows of supervised training, general data mixed in where the settings say so."""
    from distill.train import TrainData

    rows = TrainData.read(job.data, job.validation)
    mix = job.config.mix
    return rows if mix is None else rows.mixed(job.folder / Path(mix.data).expanduser(), mix.share, seed=job.seed)


def _score(config: TrainConfig) -> Score | None:
    """The task metric as training wants it: a function of rows and answers."""
    if config.watch is None:
        return None
    from distill.evaluate import Item, parse_metric

    metric = parse_metric(config.watch.metric)

    def score(rows: Sequence[Conversation], answers: Sequence[str]) -> float:
        items = [Item(row.where or str(i), row.prompt, row.turns[-1]["content"]) for i, row in enumerate(rows)]
        return metric.count(items, answers).value

    return score


def _tell(config: TrainConfig, result: TrainResult) -> None:
    facts = result.facts
    err.print(
        f"{facts['steps']} steps, loss {facts['loss_first']} to {facts['loss_last']}, "
        f"{facts['tokens_per_second']:.0f} tokens/s, {facts['train_seconds']:.0f} s, "
        f"peak {facts['peak_memory_bytes'] / 1e9:.1f} GB, {facts['dtype']}"
    )
    if task := facts.get("task"):
        err.print(f"{task['metric']} on validation rows: best {task['best']:.3f} at step {task['best_step']}, kept")
    if facts.get("advice"):
        err.print(Text(facts["advice"], style="yellow"))
    if held_out := facts.get("held_out"):
        said = f"accuracy {held_out['accuracy']:.3f}, margin {held_out['margin']:.3f}"
        likely = f"{held_out['prefers_chosen_before']:.3f} before, {held_out['prefers_chosen']:.3f} after"
        err.print(f"{held_out['pairs']} held-out pairs: {said}; chosen answer the more probable: {likely}")
    rows = "rows" if config.method == "sft" else "pairs"
    if facts["dropped_long"]:
        left_out = f"{facts['dropped_long']} {rows} longer than {config.max_length} tokens were left out"
        err.print(Text(left_out, style="yellow"))
    if facts.get("thinking_lost"):
        lost = f"the chat template takes the reasoning out of {facts['thinking_lost']} answers: it is not trained"
        err.print(Text(lost, style="yellow"))
    if facts.get("dropped_equal"):
        err.print(Text(f"{facts['dropped_equal']} pairs of equal answers were left out", style="yellow"))
    err.print("one example, trained tokens between ⟦ and ⟧:")
    err.print(safe(facts["example"]["text"], limit=1200))
    err.print(safe(str(result.adapter or result.model)))


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
