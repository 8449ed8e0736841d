# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false, reportUnknownParameterType=false, reportMissingParameterType=false
# trl and transformers are only partly typed.
"""TRL's KTOTrainer (arXiv:2402.01306) on token ids of our own rendering, as `pairing.py` is for pairs.

KTO compares an answer's reward with how far the student has moved from its reference on average, which it estimates on
prompts with answers that are not theirs. TRL pairs these once, along a fixed order of rows; here each answer of a
forward pass is also put after the next prompt of it, so the order of rows is ours and the estimate is made of the same
answers it is compared with.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distill.errors import InputError
from distill.recipe import TrainConfig
from distill.train.answers import answering, finished, log_probabilities, text_of
from distill.train.marked import Marked
from distill.train.template import Encoder
from distill.train.trainer import arguments
from distill.train.watch import Watch

__all__ = ["EncodedAnswer", "build", "encode", "held_out", "score", "settings", "show", "tokens_of", "weights"]


@dataclass(frozen=True, slots=True)
class EncodedAnswer:
    """One marked answer as token ids, the answer with the token that ends its turn."""

    prompt_ids: list[int]
    completion_ids: list[int]
    good: bool
    where: str = ""

    @property
    def longest(self) -> int:
        """Tokens of the row."""
        return len(self.prompt_ids) + len(self.completion_ids)

    def columns(self) -> dict[str, Any]:
        """As TRL's collator wants it."""
        return {"prompt_ids": self.prompt_ids, "completion_ids": self.completion_ids, "label": self.good}


def encode(rows: Sequence[Marked], tokenizer: Any, *, max_length: int) -> tuple[list[EncodedAnswer], int]:
    """(the answers that fit, how many do not).

    Raises:
        InputError: the template refuses a row.
    """
    encoder = Encoder(tokenizer)
    made = [EncodedAnswer(*encoder.last(row.conversation), row.good, row.where) for row in rows]
    kept = [row for row in made if row.longest <= max_length]
    return kept, len(made) - len(kept)


def weights(config: TrainConfig, rows: Sequence[EncodedAnswer]) -> tuple[float, float]:
    """Weights of good and of bad answers: where none is given, both kinds weigh the same in sum (equation 8 there)."""
    good = max(1, sum(row.good for row in rows))
    bad = max(1, len(rows) - good)
    given = config.preference
    if given.desirable is None and given.undesirable is None:
        return max(1.0, bad / good), max(1.0, good / bad)
    return given.desirable or 1.0, given.undesirable or 1.0


def settings(
    config: TrainConfig,
    folder: Path,
    *,
    seed: int,
    dtype: str,
    rows: int,
    watched: int,
    weights: tuple[float, float] = (1.0, 1.0),
) -> Any:
    """TRL's arguments for KTO; `weights` of good and of bad answers."""
    from trl.trainer.kto_config import KTOConfig

    common = arguments(config, folder, seed=seed, dtype=dtype, rows=rows, watched=watched)
    if common["per_device_train_batch_size"] < 2:
        raise InputError(
            "kto needs two rows or more in a forward pass: it compares them",
            field="train.micro_batch_size",
            hint="raise micro_batch_size (or batch_size), or set gradient_checkpointing where memory is short",
        )
    # TRL pairs rows along a fixed order and wants to hear so; `build` makes the pairs of each pass itself.
    common["train_sampling_strategy"] = "sequential"
    return KTOConfig(
        **common,
        beta=config.preference.beta,
        desirable_weight=weights[0],
        undesirable_weight=weights[1],
    )


def build(
    config: TrainConfig,
    arguments: Any,
    model: Any,
    tokenizer: Any,
    train: Sequence[EncodedAnswer],
    validation: Sequence[EncodedAnswer],
    watch: Watch,
    *,
    peft: Any,
    tolerance: float,
) -> Any:
    """The trainer, ready for `.train()`; `model`, `peft` and `tolerance` as in `answers.finished`."""
    from trl.trainer.kto_trainer import KTOTrainer

    plain = _collator(tokenizer)

    def with_others(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
        others = [row["completion_ids"] for row in ([*rows[-1:], *rows[:-1]] if len(rows) > 1 else [spare])]
        return plain([{**row, "KL_completion_ids": other} for row, other in zip(rows, others, strict=True)])

    # A row that is left alone at the end of an epoch is compared with the first one.
    spare = train[0].columns()
    return finished(
        answering(KTOTrainer, train, config, watch),
        config,
        (train, validation),
        with_others,
        model=model,
        peft=peft,
        tolerance=tolerance,
        arguments=arguments,
        tokenizer=tokenizer,
        watch=watch,
    )


def score(trainer: Any, rows: Sequence[EncodedAnswer], *, reference: bool = False) -> list[float]:
    """Log-probabilities of the answers, in nats, summed over their tokens.

    Args:
        reference: of the frozen reference instead of the student.
    """
    found = log_probabilities(trainer, rows, _collator(trainer.processing_class), reference=reference)
    return [answer for (answer,) in found]


def _collator(tokenizer: Any) -> Any:
    from trl.trainer.kto_trainer import DataCollatorForUnpairedPreference

    return DataCollatorForUnpairedPreference(pad_token_id=tokenizer.pad_token_id)


def held_out(
    rows: Sequence[EncodedAnswer], before: Sequence[float], after: Sequence[float], *, beta: float
) -> dict[str, Any] | None:
    """What held-out answers say; None without any.

    `accuracy`: share of answers that moved the right way against the reference, good ones up and bad ones down;
    `margin`: beta times the mean gain of good answers over that of bad ones, in nats; both None without both kinds.
    """
    if not rows:
        return None
    gains = {
        kind: [a - b for row, b, a in zip(rows, before, after, strict=True) if row.good is kind]
        for kind in (True, False)
    }
    up, down = (sum(gains[kind]) / len(gains[kind]) if gains[kind] else None for kind in (True, False))
    right = sum(gain > 0 for gain in gains[True]) + sum(gain < 0 for gain in gains[False])
    return {
        "answers": len(rows),
        "good": len(gains[True]),
        "accuracy": right / len(rows),
        "margin": None if up is None or down is None else beta * (up - down),
        "good_change": up,
        "bad_change": down,
    }


def tokens_of(rows: Sequence[EncodedAnswer]) -> dict[str, int]:
    """Total, trained and longest."""
    return {
        "total": sum(row.longest for row in rows),
        "trained": sum(len(row.completion_ids) for row in rows),
        "longest": max(row.longest for row in rows),
    }


def show(row: EncodedAnswer, tokenizer: Any) -> dict[str, Any]:
    """One row as the student sees it."""
    prompt, answer = text_of(row.prompt_ids, tokenizer), text_of(row.completion_ids, tokenizer)
    return {
        "where": row.where,
        "text": f"{'good' if row.good else 'bad'}: {prompt}⟦{answer}⟧",
        "tokens": row.longest,
        "trained_tokens": len(row.completion_ids),
        "ends_with": text_of(row.completion_ids[-1:], tokenizer),
    }
