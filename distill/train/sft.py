# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# transformers and peft are only partly typed.
"""Supervised fine-tuning of a student, from rows to an adapter. What is left is described in `folder.py`."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from distill.errors import Halted, InputError
from distill.io import digest
from distill.recipe import TrainConfig
from distill.train import student, team
from distill.train.bases import remember
from distill.train.board import board
from distill.train.data import TrainData
from distill.train.examples import Prepared, prepare
from distill.train.facts import run_facts
from distill.train.folder import TrainResult, claim, finish, identity, last_checkpoint, remembered
from distill.train.forecast import rows_that_fit
from distill.train.ready import choose_attention, make_ready, restore
from distill.train.supervised import build
from distill.train.task import Score, advice, keep_best, scorer, scores
from distill.train.template import use_template
from distill.train.trainer import settings
from distill.train.watch import Progress, Watch

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
    seed = config.seed if config.seed is not None else seed
    started = time.monotonic()
    place = student.locate(config.model)
    base = student.weights_digest(place.folder)
    if team.members() > 1:
        student.offline()
        team.join()
    known = identity(config, model=[place.name, base], data=data.digest, seed=seed)
    finished = team.agreed(lambda: _begin(place, base, out, known, overwrite=overwrite))
    if finished is not None:
        return TrainResult(out, finished)
    student.offline()
    from transformers import set_seed

    tokenizer = student.load_tokenizer(place.folder)
    template = use_template(tokenizer)
    prepared = prepare(
        data, tokenizer, max_length=config.max_length, thinking=config.thinking, long_rows=config.long_rows
    )
    dtype, why = team.agreed(lambda: remembered(out, lambda: student.choose_dtype(config.dtype)))
    fitting, note = team.agreed(
        lambda: remembered(out, lambda: rows_that_fit(config, prepared.train, place, dtype, seed=seed), key="at_once")
    )
    asked = config.rows_at_once
    config = config if fitting == asked else config.model_copy(update={"micro_batch_size": fitting})
    set_seed(seed)
    # A full fine-tune keeps its weights in float32 and multiplies in bfloat16: in bfloat16 alone most updates are
    # smaller than the spacing of the numbers, and are lost.
    held = "float32" if config.adapter == "full" else dtype
    model = student.load_model(place.folder, dtype=held, four_bit=config.adapter == "qlora")
    watch = Watch(progress=progress, stop=stop)
    if team.leads():
        watch.log = out / "log.jsonl"
        watch.board = board(out / "tensorboard") if config.tensorboard else None
        if note:
            watch.line({"step": 0, "micro_batch_size": fitting, "note": note})
    checkpoints = out / "checkpoints"
    rows, watched = len(prepared.train), len(prepared.validation)
    arguments = settings(config, checkpoints, seed=seed, dtype=dtype, rows=rows, watched=watched, whole=True)
    trainer = build(
        config,
        arguments,
        model,
        tokenizer,
        prepared.train,
        prepared.validation,
        watch,
        peft=None if config.adapter == "full" else student.adapter_config(config.lora, model),
        tolerance=0.02 if dtype == "bfloat16" else 1e-3,
    )
    if config.watch and trainer.is_fsdp_enabled:
        raise InputError("the task metric needs whole weights, not a share of them", field="train.watch")
    best = checkpoints / "best"
    if config.watch and score:
        trainer.add_callback(scorer(config.watch, data.validation, score, tokenizer, best, watch))
    fused = make_ready(trainer.model, config)
    attention = choose_attention(trainer.model, config, prepared.tokens["longest"])
    resumed = team.agreed(lambda: last_checkpoint(checkpoints))
    trainer.train(resume_from_checkpoint=str(resumed) if resumed else None)
    if watch.stopped:
        step = trainer.state.global_step
        raise Halted(
            f"stopped at step {step} of {trainer.state.max_steps}; saved in {checkpoints}",
            hint="the same command continues from there",
        )
    best_step = keep_best(trainer.model, best, trainer.state)
    restore(trainer.model)
    whole = trainer.accelerator.get_state_dict(trainer.model) if trainer.is_fsdp_enabled else None

    def leave() -> dict[str, Any]:
        saved = student.save(
            trainer.model,
            tokenizer,
            out,
            base=place.name,
            template=template,
            trained={"dtype": dtype, "four_bit": config.adapter == "qlora", "base_digest": base},
            state=whole,
        )
        facts = run_facts(config, trainer, watch, started=started, resumed=resumed)
        facts.update(
            **_facts(data, prepared, trainer),
            **_scored(config, trainer.state, best_step),
            **_cut(asked, trainer.at_once, note),
            model=place.name,
            seed=seed,
            dtype=dtype,
            dtype_reason=why,
            fused_layers=fused,
            attention=attention,
            processes=team.members(),
            template=digest(template.encode()),
            weights_digest=student.weights_digest(saved),
            identity=known,
        )
        return finish(out, facts).facts

    return TrainResult(out, team.agreed(leave))


def _begin(place: student.Place, base: str, out: Path, known: str, *, overwrite: bool) -> dict[str, Any] | None:
    """The facts of this training if it is finished; else `out` is its."""
    remember(place, base)
    return claim(out, known, overwrite=overwrite)


def _cut(asked: int, used: int, note: str | None) -> dict[str, Any]:
    """Rows of a forward pass, and why they are fewer than the settings say."""
    if used < asked and note is None:
        note = f"{used} rows at once in place of {asked}: memory ran out; the updates are the same"
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


def _facts(data: TrainData, prepared: Prepared, trainer: Any) -> dict[str, Any]:
    return {
        "rows": len(prepared.train),
        "validation_rows": len(prepared.validation),
        "dropped_long": prepared.dropped,
        "split_rows": prepared.split,
        "divided_rows": prepared.divided,
        "thinking_lost": prepared.thinking_lost,
        "general_rows": data.general,
        "row_tokens": prepared.tokens,
        "shared_prefix": bool(trainer._share),
        "own_loss": trainer._plain is False,
        "data_digest": data.digest,
        "sources": list(data.sources),
        "example": prepared.example,
    }
