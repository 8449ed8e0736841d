# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false, reportUnknownParameterType=false, reportMissingParameterType=false
# trl and transformers are only partly typed.
"""TRL's DPOTrainer on token ids of our own rendering.

TRL tokenises pairs itself: it appends EOS only to plain text, cuts what is too long, and where prompt and answer do
not tokenise apart it shortens the prompt. Here the ids are made as those of supervised training (the prompt is what
the student will be asked, the answer ends with the token that ends its turn), and nothing is cut.

ORPO (arXiv:2403.07691) takes the same pairs in the same trainer, with the loss of `odds_ratio` in place of DPO's and
without a reference.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distill.errors import InputError
from distill.recipe import TrainConfig
from distill.train.answers import answering, finished, log_probabilities, text_of
from distill.train.pairs import Pair
from distill.train.template import IGNORE, Encoder
from distill.train.trainer import arguments
from distill.train.watch import Watch

__all__ = ["EncodedPair", "build", "encode", "held_out", "odds_ratio", "score", "settings", "show", "tokens_of"]


@dataclass(frozen=True, slots=True)
class EncodedPair:
    """One pair as token ids; both answers end with the token that ends the turn."""

    prompt_ids: list[int]
    chosen_ids: list[int]
    rejected_ids: list[int]
    where: str = ""

    @property
    def longest(self) -> int:
        """Tokens of the longer side."""
        return len(self.prompt_ids) + max(len(self.chosen_ids), len(self.rejected_ids))

    def columns(self) -> dict[str, list[int]]:
        """As TRL's collator wants it."""
        return {"prompt_ids": self.prompt_ids, "chosen_ids": self.chosen_ids, "rejected_ids": self.rejected_ids}


def encode(pairs: Sequence[Pair], tokenizer: Any, *, max_length: int) -> tuple[list[EncodedPair], int]:
    """(the pairs that fit, how many do not). A pair of which one side is too long is left out whole.

    Raises:
        InputError: the template refuses a pair, or renders its prompt differently for the two answers.
    """
    encoder = Encoder(tokenizer)
    kept: list[EncodedPair] = []
    for pair in pairs:
        prompt, chosen = encoder.last(pair.ending(pair.chosen))
        other, rejected = encoder.last(pair.ending(pair.rejected))
        if prompt != other:
            raise InputError(f"{pair.where}: the chat template renders the prompt differently for the two answers")
        encoded = EncodedPair(prompt, chosen, rejected, pair.where)
        if encoded.longest <= max_length:
            kept.append(encoded)
    return kept, len(pairs) - len(kept)


def settings(config: TrainConfig, folder: Path, *, seed: int, dtype: str, rows: int, watched: int) -> Any:
    """TRL's arguments for preference training."""
    from trl.trainer.dpo_config import DPOConfig

    chosen = config.preference
    return DPOConfig(
        **arguments(config, folder, seed=seed, dtype=dtype, rows=rows, watched=watched),
        loss_type=[chosen.loss, *(["sft"] if chosen.sft else [])],
        loss_weights=[1.0, *([chosen.sft] if chosen.sft else [])],
        beta=chosen.beta,
    )


def build(
    config: TrainConfig,
    arguments: Any,
    model: Any,
    tokenizer: Any,
    train: Sequence[EncodedPair],
    validation: Sequence[EncodedPair],
    watch: Watch,
    *,
    peft: Any,
    tolerance: float,
) -> Any:
    """The trainer, ready for `.train()`; `model`, `peft` and `tolerance` as in `answers.finished`."""
    from trl.trainer.dpo_trainer import DPOTrainer

    class OddsRatio(DPOTrainer):
        def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
            mask = inputs["completion_mask"]
            labels = inputs["input_ids"].masked_fill(mask == 0, IGNORE)
            given = {key: inputs[key] for key in ("input_ids", "attention_mask")}
            said = model(**given, labels=labels, fused_lm_head=True, use_cache=False).log_probs
            chosen, rejected = (said.sum(1) / mask[:, 1:].sum(1)).chunk(2)
            loss, odds = odds_ratio(chosen, rejected, weight=config.preference.beta)
            kept = self._metrics["train" if model.training else "eval"]
            kept["rewards/accuracies"].append(float((odds > 0).float().mean()))
            kept["rewards/margins"].append(float(odds.mean()))
            return loss.mean()

    return finished(
        answering(OddsRatio if config.method == "orpo" else DPOTrainer, train, config, watch),
        config,
        (train, validation),
        None,
        model=model,
        peft=peft,
        tolerance=tolerance,
        arguments=arguments,
        tokenizer=tokenizer,
        watch=watch,
    )


def odds_ratio(chosen: Any, rejected: Any, *, weight: float) -> tuple[Any, Any]:
    """(ORPO's loss, the log odds ratio) of each pair, from the answers' mean log-probability a token."""
    import torch

    def log_odds(mean: Any) -> Any:
        return mean - torch.log(-torch.expm1(mean.clamp(max=-1e-6)))

    ratio = log_odds(chosen) - log_odds(rejected)
    return -chosen - weight * torch.nn.functional.logsigmoid(ratio), ratio.detach()


def score(trainer: Any, pairs: Sequence[EncodedPair], *, reference: bool = False) -> list[tuple[float, float]]:
    """Log-probabilities of (chosen, rejected) answers, in nats, summed over their tokens; one a pair.

    Args:
        reference: of the frozen reference instead of the student.
    """
    found = log_probabilities(trainer, pairs, trainer.data_collator, reference=reference)
    return [(chosen, rejected) for chosen, rejected in found]


def held_out(
    pairs: Sequence[EncodedPair],
    before: Sequence[tuple[float, float]],
    after: Sequence[tuple[float, float]],
    *,
    beta: float,
) -> dict[str, Any] | None:
    """What held-out pairs say; None without any.

    `accuracy`: share of pairs whose chosen answer gained more than the rejected one, against the student it began
    with; `margin`: mean of beta times that difference, in nats. `prefers_chosen` is the share whose chosen answer is
    the more probable one, after and before. `chosen_change`, `rejected_change`: mean change of the answers'
    log-probability.
    """
    if not pairs:
        return None
    count = len(pairs)
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


def tokens_of(pairs: Sequence[EncodedPair]) -> dict[str, int]:
    """Total, trained and longest."""
    return {
        "total": sum(2 * len(p.prompt_ids) + len(p.chosen_ids) + len(p.rejected_ids) for p in pairs),
        "trained": sum(len(p.chosen_ids) + len(p.rejected_ids) for p in pairs),
        "longest": max(pair.longest for pair in pairs),
    }


def show(pair: EncodedPair, tokenizer: Any) -> dict[str, Any]:
    """One pair as the student sees it."""
    sides = (pair.prompt_ids, pair.chosen_ids, pair.rejected_ids)
    prompt, chosen, rejected = (text_of(ids, tokenizer) for ids in sides)
    return {
        "where": pair.where,
        "text": f"{prompt}⟦{chosen}⟧\nrejected: ⟦{rejected}⟧",
        "tokens": len(pair.prompt_ids) + len(pair.chosen_ids) + len(pair.rejected_ids),
        "trained_tokens": len(pair.chosen_ids) + len(pair.rejected_ids),
        "ends_with": text_of(pair.chosen_ids[-1:], tokenizer),
    }
