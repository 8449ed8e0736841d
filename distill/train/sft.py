# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# transformers and peft are only partly typed.
"""Supervised fine-tuning of a student, from rows to an adapter. What is left is described in `folder.py`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from distill.errors import InputError
from distill.recipe import TrainConfig
from distill.train import student, team
from distill.train.data import TrainData
from distill.train.examples import prepare
from distill.train.folder import TrainResult, remembered
from distill.train.forecast import rows_that_fit
from distill.train.session import begin
from distill.train.supervised import build
from distill.train.task import Score, advice, keep_best, scorer, scores
from distill.train.trainer import settings
from distill.train.watch import Progress

__all__ = ["train"]


def train(
    config: TrainConfig,
    data: TrainData,
    out: Path,
    *,
    seed: int = 0,
    progress: Callable[[Progress], None] = lambda _: None,
    stop: Callable[[], bool] = lambda: False,
    overwrite: bool = False,
    score: Score | None = None,
) -> TrainResult:
    """Train the student of `config` on `data` and leave the result in `out`.

    The same call again continues an interrupted training, and returns at once when it is complete.

    Args:
        seed: decides the adapter's first weights and the order of rows, unless `config.seed` does.
        progress: called after every update.
        stop: asked after every update; when true the training is saved and `Halted` raised.
        overwrite: discard another training that stands in `out`.
        score: what `config.watch` names, as a function.

    Raises:
        InputError: the model, the data or the template does not fit; `out` holds another training.
        Halted: stopped on request; the same call continues.
        RunError: the loss is not finite.
    """
    if config.watch and (score is None or not data.validation):
        lacking = "validation rows" if not data.validation else "a function that scores answers"
        raise InputError(f"the task metric needs {lacking}", field="train.watch")
    team.share_of(config.batch_size)  # refused here, before anything is loaded
    place = student.locate(config.model)
    session = begin(config, place, out, seed=seed, progress=progress, stop=stop, overwrite=overwrite, data=data.digest)
    if isinstance(session, TrainResult):
        return session
    session.read_template()
    tokenizer, watch, checkpoints = session.tokenizer, session.watch, session.checkpoints
    prepared = prepare(
        data, tokenizer, max_length=config.max_length, thinking=config.thinking, long_rows=config.long_rows
    )
    session.choose_dtype()
    dtype, seed = session.dtype, session.seed
    fitting, note = team.agreed(
        lambda: remembered(out, lambda: rows_that_fit(config, prepared.train, place, dtype, seed=seed), key="at_once")
    )
    asked = config.rows_at_once
    fitted = config if fitting == asked else config.model_copy(update={"micro_batch_size": fitting})
    session.config = fitted
    if note and team.leads():
        watch.line({"step": 0, "micro_batch_size": fitting, "note": note})
    model = session.load()
    rows, watched = len(prepared.train), len(prepared.validation)
    trainer = build(
        fitted,
        settings(fitted, checkpoints, seed=seed, dtype=dtype, rows=rows, watched=watched, whole=True),
        model,
        tokenizer,
        prepared.train,
        prepared.validation,
        watch,
        peft=session.new_adapter(model),
        tolerance=session.tolerance,
    )
    began = trainer.at_once
    if config.watch and trainer.is_fsdp_enabled:
        raise InputError("the task metric needs whole weights, not a share of them", field="train.watch")
    best = checkpoints / "best"
    if config.watch and score:
        trainer.add_callback(scorer(config.watch, data.validation, score, tokenizer, best, watch))
    session.make_ready(trainer, prepared.tokens["longest"])
    session.run(trainer)
    best_step = keep_best(trainer.model, best, trainer.state)
    return session.leave(
        trainer,
        data,
        **prepared.facts,
        general_rows=data.general,
        shared_prefix=bool(trainer._share),
        own_loss=trainer._plain is False,
        **_scored(config, trainer.state, best_step),
        **_cut(began, trainer.at_once, note),
    )


def _cut(began: int, used: int, note: str | None) -> dict[str, Any]:
    """Rows of a forward pass, and why they are fewer than they were at first, or than the settings say."""
    if used < began and note is None:
        note = f"{used} rows at once in place of {began}: memory ran out; the updates are the same"
    return {"micro_batch": used, "micro_batch_reason": note}


def _scored(config: TrainConfig, state: Any, best_step: int | None) -> dict[str, Any]:
    """The task metric over the training, and what to make of it."""
    found = scores(state)
    if not config.watch or not found:
        return {}
    losses = [entry for entry in state.log_history if "loss" in entry]
    return {
        "task": {
            "metric": config.watch.metric,
            "best": max(entry["task"] for entry in found),
            "best_step": best_step,
            "scores": [[entry["step"], entry["task"]] for entry in found],
        },
        "advice": advice(config.watch.metric, found, losses),
    }
