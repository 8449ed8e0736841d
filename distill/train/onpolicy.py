# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false, reportUnknownParameterType=false, reportMissingParameterType=false
# trl and transformers are only partly typed.
"""TRL's DistillationTrainer on prompts of our own rendering: the student answers, its teacher scores every token.

On-policy distillation (arXiv:2306.13649) corrects the student where it goes itself, and not only along answers that
others wrote. The prompts are the rows' (what stands before the last answer), rendered as evaluation renders them; an
answer ends at every token that ends one in evaluation. TRL computes the divergence in tiles, so the matrix of
[positions, vocabulary] never stands in memory whole, and wants output heads of one width.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from distill.errors import InputError
from distill.recipe import TrainConfig
from distill.train.data import Conversation
from distill.train.template import Encoder, stop_tokens
from distill.train.trainer import arguments, assemble, ours
from distill.train.watch import Watch

__all__ = ["build", "settings"]

_BETA = {"forward-kl": 0.0, "jsd": 0.5, "reverse-kl": 1.0}


def settings(config: TrainConfig, folder: Path, *, seed: int, dtype: str, rows: int, watched: int) -> Any:
    """TRL's arguments for on-policy distillation."""
    from trl.trainer.distillation_config import DistillationConfig

    common = arguments(config, folder, seed=seed, dtype=dtype, rows=rows, watched=watched)
    del common["max_length"]  # nothing is cut here: prompts that are too long are left out before
    loss = config.distillation
    return DistillationConfig(
        **common,
        beta=_BETA[loss.divergence],
        temperature=loss.temperature,
        max_completion_length=loss.max_tokens,
        shuffle_dataset=True,
    )


def build(
    config: TrainConfig,
    arguments: Any,
    model: Any,
    teacher: Any,
    tokenizer: Any,
    train: Sequence[Conversation],
    validation: Sequence[Conversation],
    watch: Watch,
    *,
    peft: Any,
) -> Any:
    """The trainer, ready for `.train()`; `teacher` is a frozen causal language model."""
    from datasets import Dataset
    from trl.trainer.distillation_trainer import DistillationTrainer

    encoder = Encoder(tokenizer)
    prompts = {split: [encoder.prompt(row.prompt) for row in rows] for split, rows in enumerate((train, validation))}
    heads = [m.config.get_text_config().vocab_size for m in (model, teacher)]
    if heads[0] != heads[1]:
        raise InputError(
            f"the student's output head has {heads[0]} entries, the teacher's {heads[1]}: on-policy needs one width",
            field="train.distillation.teacher",
            hint="method: distill compares what both have in common",
        )

    class Trainer(ours(DistillationTrainer, [len(ids) for ids in prompts[0]], config)):
        def _get_train_sampler(self, dataset=None):  # answers of one update are made together, in TRL's order
            return DistillationTrainer._get_train_sampler(self, dataset)  # pyright: ignore[reportPrivateUsage]

        def _tokenize_prompts(self, places):
            return [prompts[split][row] for split, row in (map(int, place.split("/")) for place in places)], None, {}

        def _compute_loss(self, unwrapped_student, inputs, num_items_in_batch):
            if self.model.training:
                watch.tokens += int(inputs["prompt_mask"].sum() + inputs["completion_mask"].sum())
                watch.trained += int(inputs["completion_mask"].sum())
            return super()._compute_loss(unwrapped_student, inputs, num_items_in_batch)

    def dataset(split: int) -> Any:
        return Dataset.from_dict({"prompt": [f"{split}/{row}" for row in range(len(prompts[split]))]})

    trainer = assemble(
        Trainer,
        (dataset(0), dataset(1) if validation else None),
        model=model,
        arguments=arguments,
        tokenizer=tokenizer,
        watch=watch,
        peft=peft,
        teacher_model=teacher,
    )
    made = model.generation_config.eos_token_id
    named = [] if made is None else [made] if isinstance(made, int) else list(made)
    trainer.eos_token_ids = list(stop_tokens(tokenizer, named))
    trainer.generation_config.eos_token_id = trainer.generation_kwargs["eos_token_id"] = trainer.eos_token_ids
    return trainer
