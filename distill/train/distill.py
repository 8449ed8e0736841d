# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# transformers and peft are only partly typed.
"""Distillation of logits: the student learns what its teacher would have said, token by token (arXiv:1503.02531).

The rows' answers are read by both; the teacher is a local model of the same vocabulary, or what a provider's
log-probabilities tell of it. With `method: on-policy` the answers are the student's own (`onpolicy.py`). What is left
is described in `folder.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from distill.errors import InputError
from distill.io import digest
from distill.recipe import TrainConfig
from distill.train import onpolicy, student
from distill.train.data import Conversation, TrainData
from distill.train.distilling import Objective, build, mean_divergence
from distill.train.divergence import TopK
from distill.train.examples import Prepared, prepare
from distill.train.folder import TrainResult
from distill.train.session import begin
from distill.train.stored import Position
from distill.train.targets import align, ask, batch_of
from distill.train.teacher import LocalTeacher, load_teacher
from distill.train.template import Encoder
from distill.train.trainer import settings
from distill.train.watch import Progress

__all__ = ["refuse_unused", "train_distillation"]


def train_distillation(
    config: TrainConfig,
    data: TrainData,
    out: Path,
    *,
    said: Mapping[str, Sequence[Position]] | None = None,
    seed: int = 0,
    progress: Callable[[Progress], None] = lambda _: None,
    stop: Callable[[], bool] = lambda: False,
    overwrite: bool = False,
) -> TrainResult:
    """Train the student of `config` towards the teacher of `config.distillation` and leave the result in `out`.

    The same call again continues an interrupted training, and returns at once when it is complete.

    Args:
        said: where no local teacher is named, what the rows' own teacher said: log-probabilities by `file:line`.
        seed, progress, stop, overwrite: as for `train`.

    Raises:
        InputError: the model, the teacher, the data or the template does not fit; `out` holds another training.
        Halted: stopped on request; the same call continues.
        RunError: the loss is not finite.
    """
    refuse_unused(config)
    loss = config.distillation
    place = student.locate(config.model)
    above = student.locate(loss.teacher) if loss.teacher else None
    source = [above.name, student.weights_digest(above.folder)] if above else _digest_of(said or {})
    config = config.model_copy(
        update={"distillation": loss.model_copy(update={"teacher": above.name if above else None})}
    )
    how: dict[str, Any] = {"progress": progress, "stop": stop, "overwrite": overwrite}
    session = begin(config, place, out, seed=seed, teacher=source, data=data.digest, **how)
    if isinstance(session, TrainResult):
        return session
    session.read_template()
    tokenizer = session.tokenizer
    prepared = prepare(
        data, tokenizer, max_length=config.max_length, thinking=config.thinking, long_rows=config.long_rows
    )
    session.choose_dtype()
    model = session.load()
    head = int(model.get_output_embeddings().weight.shape[0])
    teacher: LocalTeacher | None = None
    told: tuple[list[TopK] | None, list[TopK] | None] = (None, None)
    facts: dict[str, Any] = prepared.facts
    batch = batch_of(prepared.train[:2], tokenizer.pad_token_id, model.device)
    if above:
        teacher = load_teacher(above, tokenizer, head, prepared.train, dtype=session.dtype)
        teacher.check(batch, tolerance=session.tolerance)
        if loss.top_k is not None:
            told, teacher = _asked_once(config, teacher, prepared, tokenizer), None
        facts["teacher"] = above.name
    else:
        trained = align(prepared.train, said or {}, tokenizer, head=head)
        watched = align(prepared.validation, said or {}, tokenizer, head=head) if prepared.validation else None
        told = trained.targets, watched.targets if watched else None
        facts |= {"teacher": "stored log-probabilities", "rows_without": trained.without}
        facts["rows_apart"] = trained.apart
    objective = Objective(loss, teacher)
    peft = session.new_adapter(model)
    sizes: dict[str, Any] = {"seed": session.seed, "dtype": session.dtype, "watched": len(prepared.validation)}
    if config.method == "on-policy":
        assert teacher is not None  # noqa: S101 - `refuse_unused` has looked
        asked = _asked(data.train, tokenizer, config)
        arguments = onpolicy.settings(config, session.checkpoints, rows=len(asked), **sizes)
        trainer = onpolicy.build(
            config, arguments, model, teacher.model, tokenizer, asked, data.validation, session.watch, peft=peft
        )
        facts |= {"rows": len(asked), "dropped_long": len(data.train) - len(asked)}
    else:
        trainer = build(
            config,
            settings(config, session.checkpoints, rows=len(prepared.train), **sizes),
            model,
            tokenizer,
            (prepared.train, prepared.validation),
            told,
            objective,
            session.watch,
            peft=peft,
        )
    if trainer.accelerator.num_processes > 1:
        raise InputError("trains in one process", field="train.method", hint="use method: sft with several")
    session.make_ready(trainer, prepared.tokens["longest"])
    # Checkpointed layers run twice and must not append to a cache twice; noise is each row's own.
    alone = config.gradient_checkpointing or config.neftune is not None
    objective.check(trainer.model, batch, share=not alone, tolerance=session.tolerance)

    def measured() -> float | None:
        pad = tokenizer.pad_token_id
        return mean_divergence(
            trainer.model, objective, prepared.validation, told[1], pad=pad, rows=config.rows_at_once
        )

    before = measured()
    session.run(trainer)
    after = measured()
    return session.leave(
        trainer,
        data,
        **facts,
        general_rows=data.general,
        held_out=None if before is None else {"divergence_before": before, "divergence": after},
        shared_prefix=objective.share,
    )


def _asked_once(
    config: TrainConfig, teacher: LocalTeacher, prepared: Prepared, tokenizer: Any
) -> tuple[list[TopK], list[TopK] | None]:
    """The teacher's best tokens of both splits; it is not needed any more."""
    how: dict[str, Any] = {
        "top_k": config.distillation.top_k,
        "temperature": config.distillation.temperature,
        "pad": tokenizer.pad_token_id,
        "rows": config.rows_at_once,
    }
    return ask(teacher, prepared.train, **how), ask(teacher, prepared.validation, **how) or None


def _asked(rows: Sequence[Conversation], tokenizer: Any, config: TrainConfig) -> list[Conversation]:
    """The rows whose prompts leave room for an answer."""
    encoder = Encoder(tokenizer)
    room = config.max_length - config.distillation.max_tokens
    kept = [row for row in rows if len(encoder.prompt(row.prompt)) <= room]
    if len(kept) < config.batch_size:
        raise InputError(
            f"{len(kept)} prompts have at most {room} tokens; an update takes {config.batch_size}",
            field="train.batch_size",
            hint="lower batch_size or distillation.max_tokens, or raise max_length",
        )
    return kept


def refuse_unused(config: TrainConfig) -> None:
    """A setting that would be ignored is an error."""
    fields = type(config).model_fields
    only = ("watch", "packing", *(("neftune", "thinking", "long_rows") if config.method == "on-policy" else ()))
    for name in only:
        if getattr(config, name) != fields[name].default:
            raise InputError("is for method: sft", field=f"train.{name}")
    loss = config.distillation
    if config.method == "on-policy" and (loss.teacher is None or loss.top_k is not None):
        missing = loss.teacher is None
        said = "on-policy needs a local teacher" if missing else "is for method: distill"
        raise InputError(said, field=f"train.distillation.{'teacher' if missing else 'top_k'}")


def _digest_of(said: Mapping[str, Sequence[Position]]) -> str:
    return digest(
        [
            [where.partition(":")[2], [[p.piece.hex(), p.log, [[o.hex(), log] for o, log in p.best]] for p in told]]
            for where, told in said.items()
        ]
    )
