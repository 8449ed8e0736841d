# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false, reportUnknownParameterType=false, reportMissingParameterType=false
# trl and transformers are only partly typed.
"""TRL's SFTTrainer with a teacher: the loss of `divergence.py` on the answer's positions of our own mask.

Where the teacher is a model it reads the same batch, frozen, and is compared over the whole vocabulary; where only its
best tokens are known they travel with the row.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from distill.errors import InputError
from distill.recipe import DistillationLoss, TrainConfig
from distill.train.divergence import TopK, between, between_top, mixed
from distill.train.loss import agrees, inner, logits_of, trained_states
from distill.train.targets import batch_of, joined
from distill.train.teacher import LocalTeacher
from distill.train.template import IGNORE, Encoded
from distill.train.trainer import assemble, ours
from distill.train.watch import Watch

__all__ = ["Objective", "build", "mean_divergence"]


class Objective:
    """What is minimised on one batch."""

    def __init__(self, loss: DistillationLoss, teacher: LocalTeacher | None) -> None:
        self._loss = loss
        self._teacher = teacher
        self.share = False
        """Compute what the rows of a batch have in common once."""

    def __call__(self, model: Any, inputs: dict[str, Any], told: TopK | None) -> tuple[Any, Any]:
        """(the loss, the divergence alone), both summed over the trained positions."""
        states, labels, wanted = trained_states(model, inputs, share=self.share)
        causal = inner(model)
        return mixed(
            states,
            lambda hidden: logits_of(causal, hidden),
            list(causal.get_output_embeddings().parameters()),
            labels[wanted],
            self._target(inputs, told),
            cross_entropy=self._loss.cross_entropy,
        )

    def check(self, model: Any, inputs: dict[str, Any], *, share: bool, tolerance: float) -> None:
        """See on a batch that the student is computed as it computes itself.

        Args:
            share: compute what the rows have in common once, if the model allows it.

        Raises:
            InputError: its logits are more than its output head on its hidden states.
        """
        counts, shares = agrees(model, inputs, tolerance=tolerance)
        if not counts:
            raise InputError("the student's logits are not its output head's alone: it cannot be trained with distill")
        self.share = share and shares

    def _target(self, inputs: dict[str, Any], told: TopK | None) -> Callable[[slice, Any], Any]:
        import torch

        how: dict[str, Any] = {"kind": self._loss.divergence, "temperature": self._loss.temperature}
        if told is None:
            teacher = self._teacher
            assert teacher is not None  # noqa: S101 - one of both is there
            states = teacher.states(inputs)
            return lambda place, logits: between(logits[..., : teacher.width], teacher.logits(states[place]), **how)

        def target(place: slice, logits: Any) -> Any:
            here = TopK(told.ids[place].to(logits.device), told.logs[place].to(logits.device))
            silent = ~torch.isfinite(here.logs).any(-1)
            return between_top(logits, here, **how).masked_fill(silent, float("nan"))

        return target


def build(
    config: TrainConfig,
    arguments: Any,
    model: Any,
    tokenizer: Any,
    splits: tuple[Sequence[Encoded], Sequence[Encoded]],
    told: tuple[Sequence[TopK] | None, Sequence[TopK] | None],
    objective: Objective,
    watch: Watch,
    *,
    peft: Any,
) -> Any:
    """The trainer, ready for `.train()`.

    Args:
        splits: training and validation examples.
        told: the teacher's best tokens of both, where they are what is known of it.
    """
    from datasets import Dataset
    from trl.trainer.sft_trainer import SFTTrainer

    train, validation = splits
    apart_of: dict[str, list[float]] = {"train": [], "eval": []}
    """Divergence of each pass since the last log entry."""

    class Trainer(ours(SFTTrainer, [len(row.input_ids) for row in train], config)):
        def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
            told = inputs.pop("told", None)
            if model.training:
                watch.tokens += int(inputs["attention_mask"].sum())
                watch.trained += int((inputs["labels"] != IGNORE).sum())
            with self.accelerator.autocast():  # it wraps the model's own forward pass, which is not called here
                total, apart = objective(model, inputs, TopK(*told) if told is not None else None)
            count = int((inputs["labels"][:, 1:] != IGNORE).sum())
            apart_of["train" if model.training else "eval"].append(float(apart) / count)
            return total / (num_items_in_batch if num_items_in_batch is not None else count)

        def log(self, logs, *args, **kwargs):
            # Means over micro-batches, as the loss's own figures are.
            for name, mode in (("divergence", "train"), ("eval_divergence", "eval")):
                if values := apart_of[mode]:
                    logs[name] = sum(values) / len(values)
                    values.clear()
            super().log(logs, *args, **kwargs)

    def joint(rows: Sequence[dict[str, int]]) -> dict[str, Any]:
        split = rows[0]["split"]
        chosen = [splits[split][row["row"]] for row in rows]
        batch = batch_of(chosen, tokenizer.pad_token_id)
        known = told[split]
        if known is not None:
            whole = joined([known[row["row"]] for row in rows])
            batch["told"] = (whole.ids, whole.logs)
        return batch

    def dataset(split: int) -> Any:
        rows = range(len(splits[split]))
        return Dataset.from_dict({"split": [split for _ in rows], "row": list(rows)})

    data = dataset(0), dataset(1) if validation else None
    return assemble(
        Trainer, data, model=model, arguments=arguments, tokenizer=tokenizer, watch=watch, peft=peft, collate=joint
    )


def mean_divergence(
    model: Any,
    objective: Objective,
    examples: Sequence[Encoded],
    told: Sequence[TopK] | None,
    *,
    pad: int,
    rows: int,
) -> float | None:
    """The student's mean divergence from its teacher over the examples' trained positions; None without any.

    Args:
        told: the teacher's best tokens, where they are what is known of it.
        rows: examples of a forward pass.
    """
    import torch

    if not examples:
        return None
    apart, count = 0.0, 0
    order = sorted(range(len(examples)), key=lambda i: -len(examples[i].input_ids))
    training, share = model.training, objective.share
    objective.share = False
    model.eval()
    try:
        with torch.no_grad():
            for start in range(0, len(order), rows):
                chosen = order[start : start + rows]
                batch = batch_of([examples[i] for i in chosen], pad, model.device)
                known = None if told is None else joined([told[i] for i in chosen])
                apart += float(objective(model, batch, known)[1])
                count += int((batch["labels"][:, 1:] != IGNORE).sum())
    finally:
        model.train(training)
        objective.share = share
    return apart / count
