# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false, reportUnknownParameterType=false, reportMissingParameterType=false
# trl and transformers are only partly typed.
"""Whole answers and how probable they are: what training on pairs (`pairing.py`) and on marks (`marking.py`) share.

Both hand TRL token ids of our own rendering, count their tokens, and on a CPU run the output head on the answers'
positions only, with what all rows of a batch share computed once, as in `loss.py`; TRL scores every position there.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from distill.recipe import TrainConfig
from distill.train.loss import agrees, trained_logits
from distill.train.template import IGNORE
from distill.train.trainer import assemble, ours
from distill.train.watch import Watch

__all__ = ["Row", "answering", "finished", "log_probabilities", "text_of"]


class Row(Protocol):
    """A prompt and its answers as token ids."""

    @property
    def longest(self) -> int:
        """Tokens of the longest sequence it makes."""
        ...

    def columns(self) -> dict[str, Any]:
        """As TRL's collator wants it."""
        ...


def answering(base: Any, rows: Sequence[Row], config: TrainConfig, watch: Watch) -> Any:
    """One of TRL's trainers that takes ids as they are and counts those of completions."""

    class Answering(ours(base, [row.longest for row in rows], config)):
        def _prepare_dataset(self, dataset, *args, **kwargs):  # the ids are there already
            return dataset

        def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
            if model.training:
                watch.tokens += int(inputs["attention_mask"].sum())
                watch.trained += int(inputs["completion_mask"].sum())
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)

    return Answering


def finished(
    kind: Any,
    config: TrainConfig,
    splits: tuple[Sequence[Row], Sequence[Row]],
    collate: Any,
    *,
    model: Any,
    peft: Any,
    tolerance: float,
    **settings: Any,
) -> Any:
    """The trainer of class `kind`, ready for `.train()`.

    Args:
        splits: training and validation rows.
        collate: from rows to a batch; None: TRL's own.
        model: a PEFT model, whose adapter is trained with a frozen copy of itself as the reference; or a plain model,
            which gets the adapter of `peft`, and is itself the reference.
        tolerance: how far two ways to compute the same loss may lie apart, relatively.
        settings: what `assemble` takes beside it.
    """
    from datasets import Dataset

    data = tuple(Dataset.from_list([row.columns() for row in rows]) if rows else None for rows in splits)
    trainer = assemble(kind, data, model=model, peft=peft, collate=collate, **settings)
    if peft is None:
        _start_at_the_reference(trainer.model)
    _cheaper_head(trainer, trainer.data_collator([row.columns() for row in splits[0][:2]]), config, tolerance=tolerance)
    return trainer


def log_probabilities(trainer: Any, rows: Sequence[Row], collate: Callable[..., Any], *, reference: bool) -> list[Any]:
    """Log-probabilities of each row's answers, in nats, summed over their tokens: a list with one for each answer.

    Args:
        collate: from rows to a batch: the first answers of all rows, then the second ones.
        reference: of the frozen reference instead of the student.
    """
    import torch
    from trl.trainer.utils import use_adapter

    model = trainer.model
    name = "ref" if "ref" in model.peft_config else None
    found: dict[int, list[float]] = {}
    order = sorted(range(len(rows)), key=lambda i: rows[i].longest)
    training = model.training
    model.eval()
    size = trainer.args.per_device_eval_batch_size
    try:
        with torch.no_grad(), use_adapter(model, name) if reference else contextlib.nullcontext():
            for start in range(0, len(order), size):
                chosen = order[start : start + size]
                batch = collate([rows[i].columns() for i in chosen])
                batch = {key: value.to(model.device) for key, value in batch.items()}
                labels = batch["input_ids"].masked_fill(batch["completion_mask"] == 0, IGNORE)
                given = {key: batch[key] for key in ("input_ids", "attention_mask")}
                logs = model(**given, labels=labels, fused_lm_head=True, use_cache=False).log_probs.sum(1)
                sides = logs.view(-1, len(chosen)).t().tolist()
                found.update(zip(chosen, sides, strict=True))
    finally:
        model.train(training)
    return [found[i] for i in range(len(rows))]


def text_of(ids: list[int], tokenizer: Any) -> str:
    """As the student sees it."""
    return str(tokenizer.decode(ids, clean_up_tokenization_spaces=False))


def _start_at_the_reference(model: Any) -> None:
    """TRL casts the trained adapter of a 4-bit base to bfloat16 after it was copied: policy and reference differ
    before the first step. The copy still has the adapter's numbers."""
    for name, parameter in model.named_parameters():
        if ".default." in name:
            parameter.data = model.get_parameter(name.replace(".default.", ".ref.")).data.float().clone()


def _cheaper_head(trainer: Any, batch: dict[str, Any], config: TrainConfig, *, tolerance: float) -> None:
    """On a CPU, score the answers' positions only, where the model allows it; `batch` tells whether it does."""
    import torch

    if torch.cuda.is_available() or config.gradient_checkpointing or trainer.aux_loss_enabled:
        return
    labels = batch["input_ids"].masked_fill(batch["completion_mask"] == 0, IGNORE)
    inputs = {"input_ids": batch["input_ids"], "attention_mask": batch["attention_mask"], "labels": labels}
    counts, shares = agrees(trainer.model, inputs, tolerance=tolerance)
    if counts:
        _score_answers_only(trainer.model, share=shares)


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
