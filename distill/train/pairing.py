# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false, reportUnknownParameterType=false, reportMissingParameterType=false
# trl and transformers are only partly typed.
"""TRL's DPOTrainer on token ids of our own rendering.

TRL tokenises pairs itself: it appends EOS only to plain text, cuts what is too long, and where prompt and answer do
not tokenise apart it shortens the prompt. Here the ids are made as those of supervised training (the prompt is what
the student will be asked, the answer ends with the token that ends its turn), and nothing is cut.

On a CPU the output head runs on the answers' positions only, and what all rows of a batch share is computed once, as
in `loss.py`; TRL scores every position there.

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
from distill.train.loss import agrees, trained_logits
from distill.train.pairs import Pair
from distill.train.template import IGNORE, Encoder
from distill.train.trainer import arguments, ours
from distill.train.watch import Watch, recorder

__all__ = [
    "EncodedPair",
    "build",
    "cheaper_head",
    "encode",
    "held_out",
    "odds_ratio",
    "score",
    "settings",
    "show",
    "start_at_the_reference",
    "tokens_of",
]


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
    """The trainer, ready for `.train()`.

    Args:
        model: a PEFT model, whose adapter is trained with a frozen copy of itself as the reference; or a plain model,
            which gets the adapter of `peft`, and is itself the reference.
    """
    from datasets import Dataset
    from transformers import PrinterCallback
    from trl.trainer.dpo_trainer import DPOTrainer

    class Trainer(ours(DPOTrainer, [pair.longest for pair in train], config)):
        def _prepare_dataset(self, dataset, *args, **kwargs):  # the ids are there already
            return dataset

        def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
            if model.training:
                watch.tokens += int(inputs["attention_mask"].sum())
                watch.trained += int(inputs["completion_mask"].sum())
            if config.method == "orpo":
                return self._odds_ratio(model, inputs)
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)

        def _odds_ratio(self, model, inputs):
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

    def dataset(rows: Sequence[EncodedPair]) -> Any:
        return Dataset.from_list([row.columns() for row in rows])

    trainer = Trainer(
        model=model,
        args=arguments,
        train_dataset=dataset(train),
        eval_dataset=dataset(validation) if validation else None,
        processing_class=tokenizer,
        peft_config=peft,
        callbacks=[recorder(watch)],
    )
    trainer.remove_callback(PrinterCallback)  # it prints to stdout, which belongs to the command's result
    if peft is None:
        start_at_the_reference(trainer.model)
    cheaper_head(trainer, trainer.data_collator([pair.columns() for pair in train[:2]]), config, tolerance=tolerance)
    return trainer


def odds_ratio(chosen: Any, rejected: Any, *, weight: float) -> tuple[Any, Any]:
    """(ORPO's loss, the log odds ratio) of each pair, from the answers' mean log-probability a token."""
    import torch

    def log_odds(mean: Any) -> Any:
        return mean - torch.log(-torch.expm1(mean.clamp(max=-1e-6)))

    ratio = log_odds(chosen) - log_odds(rejected)
    return -chosen - weight * torch.nn.functional.logsigmoid(ratio), ratio.detach()


def cheaper_head(trainer: Any, batch: dict[str, Any], config: TrainConfig, *, tolerance: float) -> None:
    """On a CPU, score the answers' positions only, where the model allows it; `batch` tells whether it does."""
    import torch

    if torch.cuda.is_available() or config.gradient_checkpointing or trainer.aux_loss_enabled:
        return
    labels = batch["input_ids"].masked_fill(batch["completion_mask"] == 0, IGNORE)
    inputs = {"input_ids": batch["input_ids"], "attention_mask": batch["attention_mask"], "labels": labels}
    counts, shares = agrees(trainer.model, inputs, tolerance=tolerance)
    if counts:
        _score_answers_only(trainer.model, share=shares)


def start_at_the_reference(model: Any) -> None:
    """TRL casts the trained adapter of a 4-bit base to bfloat16 after it was copied: policy and reference differ
    before the first step. The copy still has the adapter's numbers."""
    for name, parameter in model.named_parameters():
        if ".default." in name:
            parameter.data = model.get_parameter(name.replace(".default.", ".ref.")).data.float().clone()


def _score_answers_only(model: Any, *, share: bool) -> None:
    """Replace TRL's fused head, which scores every position on a CPU, by one for the answers' positions."""
    import functools

    import torch
    from trl.trainer.utils import FusedCausalLMOutput

    causal = model.get_base_model()
    plain = causal.forward

    @functools.wraps(plain)
    def forward(*args, fused_lm_head=False, labels=None, input_ids=None, attention_mask=None, **kwargs):
        if not fused_lm_head:
            return plain(*args, labels=labels, input_ids=input_ids, attention_mask=attention_mask, **kwargs)
        inputs: dict[str, Any] = {"input_ids": input_ids, "labels": labels, "attention_mask": attention_mask}
        logits, following, wanted = trained_logits(causal, inputs, share=share)
        logits = logits.float()
        whole: Any = inputs["labels"][:, 1:] != IGNORE
        logs = torch.log_softmax(logits, -1)
        said = logs.gather(-1, following[wanted].unsqueeze(-1)).squeeze(-1)

        def placed(values, kind=torch.float32):
            return torch.zeros(whole.shape, dtype=kind).masked_scatter(whole, values.to(kind))

        with torch.no_grad():
            entropy = -(logs.exp() * logs).sum(-1)
            top = logits.argmax(-1) == following[wanted]
        return FusedCausalLMOutput(
            log_probs=placed(said),
            entropy=placed(entropy),
            mean_logits=placed(logits.detach().mean(-1)),
            is_top1=placed(top, torch.bool),
        )

    causal.forward = forward


def score(trainer: Any, pairs: Sequence[EncodedPair], *, reference: bool = False) -> list[tuple[float, float]]:
    """Log-probabilities of (chosen, rejected) answers, in nats, summed over their tokens; one a pair.

    Args:
        reference: of the frozen reference instead of the student.
    """
    import contextlib

    import torch
    from trl.trainer.utils import use_adapter

    model = trainer.model
    name = "ref" if "ref" in model.peft_config else None
    found: dict[int, tuple[float, float]] = {}
    order = sorted(range(len(pairs)), key=lambda i: pairs[i].longest)
    training = model.training
    model.eval()
    size = trainer.args.per_device_eval_batch_size
    try:
        with torch.no_grad(), use_adapter(model, name) if reference else contextlib.nullcontext():
            for start in range(0, len(order), size):
                chosen = order[start : start + size]
                batch = trainer.data_collator([pairs[i].columns() for i in chosen])
                batch = {key: value.to(model.device) for key, value in batch.items()}
                mask = batch.pop("completion_mask")
                labels = batch["input_ids"].masked_fill(mask == 0, IGNORE)
                logs = model(**batch, labels=labels, fused_lm_head=True, use_cache=False).log_probs.sum(1)
                better, worse = (side.tolist() for side in logs.chunk(2))
                found.update(zip(chosen, zip(better, worse, strict=True), strict=True))
    finally:
        model.train(training)
    return [found[i] for i in range(len(pairs))]


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
