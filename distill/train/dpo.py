# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# transformers and peft are only partly typed.
"""Preference training: the student learns which of two answers is better (DPO, arXiv:2305.18290; IPO, 2310.12036).

It goes on from an adapter, whose frozen copy is the reference; or from a plain model, which then is the reference.
What is left is described in `folder.py`: one adapter, that takes the place of the one it began with.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from distill.errors import Halted, InputError
from distill.io import digest
from distill.recipe import TrainConfig
from distill.train import student
from distill.train.bases import remember, start_from
from distill.train.facts import run_facts
from distill.train.folder import TrainResult, claim, finish, identity, last_checkpoint, remembered
from distill.train.pairing import EncodedPair, build, encode, score, settings
from distill.train.pairs import PairData
from distill.train.ready import choose_attention, make_ready, restore
from distill.train.template import use_template
from distill.train.watch import Progress, Watch

__all__ = ["train_preferences"]


def train_preferences(
    config: TrainConfig,
    data: PairData,
    out: Path,
    *,
    adapter: Path | None = None,
    seed: int = 0,
    progress: Callable[[Progress], None] = lambda _: None,
    stop: Callable[[], bool] = lambda: False,
    overwrite: bool = False,
) -> TrainResult:
    """Train the student of `config` on the pairs of `data` and leave the result in `out`.

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
        raise InputError("dpo trains an adapter, not all weights", field="adapter", hint="use lora or qlora")
    for name, unused in {"watch": None, "mix": None, "neftune": None, "thinking": "keep"}.items():
        if getattr(config, name) != unused:
            raise InputError("is for method: sft", field=f"train.{name}")
    seed = config.seed if config.seed is not None else seed
    started = time.monotonic()
    start = start_from(adapter, config.model or None) if adapter is not None else None
    place = start.base if start else student.locate(config.model)
    if start:
        config = config.model_copy(update={"model": place.name, "adapter": "qlora" if start.four_bit else "lora"})
    base = student.weights_digest(place.folder)
    remember(place, base)
    first = student.weights_digest(start.adapter) if start else None
    known = identity(config, model=[place.name, base], adapter=first, data=data.digest, seed=seed)
    finished = claim(out, known, overwrite=overwrite)
    if finished is not None:
        return TrainResult(out, finished)
    student.offline()
    from transformers import set_seed

    tokenizer = student.load_tokenizer(place.folder)
    template = use_template(tokenizer, start.adapter if start else None)
    train, dropped = encode(data.train, tokenizer, max_length=config.max_length)
    watched, unwatched = encode(data.validation, tokenizer, max_length=config.max_length)
    if not train:
        raise InputError(f"all {dropped} pairs are longer than max_length ({config.max_length} tokens)")

    def choose() -> tuple[str, str]:
        if start and config.dtype == "auto" and start.dtype != "auto":
            return start.dtype, "the adapter was trained so"
        return student.choose_dtype(config.dtype)

    dtype, why = remembered(out, choose)
    set_seed(seed)
    model = student.load_model(place.folder, dtype=dtype, four_bit=config.adapter == "qlora")
    if start:
        model = student.load_adapter(model, start.adapter)
    watch = Watch(progress=progress, stop=stop, log=out / "log.jsonl")
    checkpoints = out / "checkpoints"
    trainer = build(
        config,
        settings(config, checkpoints, seed=seed, dtype=dtype, rows=len(train), watched=len(watched)),
        model,
        tokenizer,
        train,
        watched,
        watch,
        peft=None if start else student.adapter_config(config.lora, model),
        tolerance=0.02 if dtype == "bfloat16" else 1e-3,
    )
    fused = make_ready(trainer.model, config)
    attention = choose_attention(trainer.model, config, max(pair.longest for pair in train), sides=2)
    before = score(trainer, watched, reference=True)
    resumed = last_checkpoint(checkpoints)
    trainer.train(resume_from_checkpoint=str(resumed) if resumed else None)
    if watch.stopped:
        raise Halted(
            f"stopped at step {trainer.state.global_step} of {trainer.state.max_steps}; saved in {checkpoints}",
            hint="the same command continues from there",
        )
    after = score(trainer, watched)
    restore(trainer.model)
    notes = {"dtype": dtype, "four_bit": config.adapter == "qlora", "base_digest": base}
    saved = student.save(trainer.model, tokenizer, out, base=place.name, template=template, trained=notes)
    facts = run_facts(config, trainer, watch, started=started, resumed=resumed)
    facts.update(
        rows=len(train),
        validation_rows=len(watched),
        dropped_long=dropped,
        dropped_long_validation=unwatched,
        dropped_equal=data.equal,
        row_tokens={
            "total": sum(2 * len(p.prompt_ids) + len(p.chosen_ids) + len(p.rejected_ids) for p in train),
            "trained": sum(len(p.chosen_ids) + len(p.rejected_ids) for p in train),
            "longest": max(pair.longest for pair in train),
        },
        reference="the adapter it began with" if start else "the base",
        preference=config.preference.model_dump(mode="json"),
        held_out=_preferred(before, after, beta=config.preference.beta),
        training={key: _late(trainer, f"rewards/{key}") for key in ("accuracies", "margins")},
        data_digest=data.digest,
        sources=list(data.sources),
        example=_shown(train[0], tokenizer),
        model=place.name,
        seed=seed,
        dtype=dtype,
        dtype_reason=why,
        fused_layers=fused,
        attention=attention,
        template=digest(template.encode()),
        started_from=first,
        weights_digest=student.weights_digest(saved),
        identity=known,
    )
    return finish(out, facts)


def _preferred(
    before: Sequence[tuple[float, float]], after: Sequence[tuple[float, float]], *, beta: float
) -> dict[str, Any] | None:
    """What held-out pairs say; None without any.

    `accuracy`: share of pairs whose chosen answer gained more than the rejected one, against the reference;
    `margin`: mean of beta times that difference, in nats. `prefers_chosen` is the share whose chosen answer is the more
    probable one, by the student and (`_before`) by the reference. `chosen_change`, `rejected_change`: mean change of
    the answers' log-probability.
    """
    if not after:
        return None
    count = len(after)
    gains = [(a[0] - b[0], a[1] - b[1]) for b, a in zip(before, after, strict=True)]
    return {
        "pairs": count,
        "accuracy": sum(chosen > rejected for chosen, rejected in gains) / count,
        "margin": beta * sum(chosen - rejected for chosen, rejected in gains) / count,
        "prefers_chosen_before": sum(chosen > rejected for chosen, rejected in before) / count,
        "prefers_chosen": sum(chosen > rejected for chosen, rejected in after) / count,
        "chosen_change": sum(chosen for chosen, _ in gains) / count,
        "rejected_change": sum(rejected for _, rejected in gains) / count,
    }


def _late(trainer: Any, key: str) -> float | None:
    """Mean of a logged figure over the last tenth of the updates."""
    values = [entry[key] for entry in trainer.state.log_history if key in entry and "loss" in entry]
    values = values[-max(1, len(values) // 10) :]
    return sum(values) / len(values) if values else None


def _shown(pair: EncodedPair, tokenizer: Any) -> dict[str, Any]:
    def text(ids: list[int]) -> str:
        return str(tokenizer.decode(ids, clean_up_tokenization_spaces=False))

    prompt = text(pair.prompt_ids)
    return {
        "where": pair.where,
        "text": f"{prompt}⟦{text(pair.chosen_ids)}⟧\nrejected: ⟦{text(pair.rejected_ids)}⟧",
        "tokens": len(pair.prompt_ids) + len(pair.chosen_ids) + len(pair.rejected_ids),
        "trained_tokens": len(pair.chosen_ids) + len(pair.rejected_ids),
        "ends_with": text(pair.chosen_ids[-1:]),
    }
