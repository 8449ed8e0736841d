# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# transformers and peft are only partly typed.
"""Preference training: the student learns which of two answers is better, or which answers are good.

DPO (arXiv:2305.18290) and IPO (2310.12036) on pairs, ORPO (2403.07691) on pairs without a reference, KTO (2402.01306)
on single answers that are marked.

It goes on from an adapter, whose frozen copy is the reference; or from a plain model, which then is the reference.
What is left is described in `folder.py`: one adapter, that takes the place of the one it began with.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from distill.errors import InputError
from distill.recipe import TrainConfig
from distill.train import marking, pairing, student
from distill.train.bases import start_from
from distill.train.folder import TrainResult
from distill.train.marked import MarkedData
from distill.train.pairs import PairData
from distill.train.session import begin
from distill.train.watch import Progress

__all__ = ["refuse_unused", "train_preferences"]


def train_preferences(
    config: TrainConfig,
    data: PairData | MarkedData,
    out: Path,
    *,
    adapter: Path | None = None,
    seed: int = 0,
    progress: Callable[[Progress], None] = lambda _: None,
    stop: Callable[[], bool] = lambda: False,
    overwrite: bool = False,
) -> TrainResult:
    """Train the student of `config` on the pairs of `data` (KTO: its marked answers) and leave the result in `out`.

    The same call again continues an interrupted training, and returns at once when it is complete.

    Args:
        adapter: the adapter to go on from, usually that of supervised training: its rank, number type and 4-bit base
            replace those of `config`. `config.model` is its base; empty: the base it was trained on.
        seed: decides the order of pairs (and a new adapter's first weights), unless `config.seed` does.
        progress, stop, overwrite: as for `train`.

    Raises:
        InputError: the model, the adapter, the pairs or the template do not fit; `out` holds another training.
        Halted: stopped on request; the same call continues.
        RunError: the loss is not finite.
    """
    if config.adapter == "full":
        said = f"{config.method} trains an adapter, not all weights"
        raise InputError(said, field="adapter", hint="use lora or qlora")
    refuse_unused(config)
    way: Any = marking if isinstance(data, MarkedData) else pairing
    things = "answers" if isinstance(data, MarkedData) else "pairs"
    start = start_from(adapter, config.model or None) if adapter is not None else None
    place = start.base if start else student.locate(config.model)
    if start:
        config = config.model_copy(update={"model": place.name, "adapter": "qlora" if start.four_bit else "lora"})
    first = student.weights_digest(start.adapter) if start else None
    how: dict[str, Any] = {"progress": progress, "stop": stop, "overwrite": overwrite}
    session = begin(config, place, out, seed=seed, adapter=first, data=data.digest, **how)
    if isinstance(session, TrainResult):
        return session
    session.read_template(start.adapter if start else None)
    tokenizer = session.tokenizer
    train, dropped = way.encode(data.train, tokenizer, max_length=config.max_length)
    watched, unwatched = way.encode(data.validation, tokenizer, max_length=config.max_length)
    if not train:
        raise InputError(f"all {dropped} {things} are longer than max_length ({config.max_length} tokens)")
    as_trained = start is not None and config.dtype == "auto" and start.dtype != "auto"
    session.choose_dtype((start.dtype, "the adapter was trained so") if start and as_trained else None)
    model = session.load()
    if start:
        model = student.load_adapter(model, start.adapter, trainable=True)
    sizes: dict[str, Any] = {"rows": len(train), "watched": len(watched)}
    if way is marking:
        sizes["weights"] = marking.weights(config, train)
    trainer = way.build(
        config,
        way.settings(config, session.checkpoints, seed=session.seed, dtype=session.dtype, **sizes),
        model,
        tokenizer,
        train,
        watched,
        session.watch,
        peft=None if start else session.new_adapter(model),
        tolerance=session.tolerance,
    )
    session.make_ready(trainer, max(row.longest for row in train), sides=1 if way is marking else 2)
    before = way.score(trainer, watched, reference=True)
    session.run(trainer)
    after = way.score(trainer, watched)
    if isinstance(data, PairData):
        counts: dict[str, Any] = {"dropped_equal": data.equal}
    else:
        counts = {"good_rows": sum(row.good for row in train), "mark_weights": sizes["weights"]}
    return session.leave(
        trainer,
        data,
        rows=len(train),
        validation_rows=len(watched),
        dropped_long=dropped,
        dropped_long_validation=unwatched,
        row_tokens=way.tokens_of(train),
        reference="none" if config.method == "orpo" else "the adapter it began with" if start else "the base",
        preference=config.preference.model_dump(mode="json"),
        held_out=way.held_out(watched, before, after, beta=config.preference.beta),
        training={key: _late(trainer, f"rewards/{key}") for key in ("accuracies", "margins")},
        example=way.show(train[0], tokenizer),
        started_from=first,
        **counts,
    )


def refuse_unused(config: TrainConfig) -> None:
    """A setting that would be ignored is an error."""
    fields = type(config).model_fields
    for name in ("watch", "neftune", "thinking", "packing", "long_rows"):
        if name in fields and getattr(config, name) != fields[name].default:
            raise InputError("is for method: sft", field=f"train.{name}")
    chosen = config.preference
    if config.method != "dpo" and (chosen.loss != "sigmoid" or chosen.sft):
        raise InputError("is for method: dpo", field=f"train.preference.{'sft' if chosen.sft else 'loss'}")
    if config.method != "kto" and (chosen.desirable or chosen.undesirable):
        raise InputError("is for method: kto", field="train.preference.desirable")


def _late(trainer: Any, key: str) -> float | None:
    """Mean of a logged figure over the last tenth of the updates."""
    values = [entry[key] for entry in trainer.state.log_history if key in entry and "loss" in entry]
    values = values[-max(1, len(values) // 10) :]
    return sum(values) / len(values) if values else None
