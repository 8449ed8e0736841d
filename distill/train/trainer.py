# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false, reportUnknownParameterType=false, reportMissingParameterType=false
# trl and transformers are only partly typed.
"""TRL's SFTTrainer with our loss on CPUs, our checkpoints, and none of what writes paths or cards.

Classes here need torch when they are made, so `build` makes them on first use and the module stays cheap to import.

What is switched off, and why: truncation (`max_length`, it cuts the answer and its end), gradient checkpointing by
default (slower), model cards (they hold local paths), reporting services, `auto_find_batch_size` (it changes the rows
per update).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from distill.recipe import TrainConfig
from distill.train.loss import agrees, token_loss
from distill.train.order import sampler
from distill.train.template import IGNORE, Encoded
from distill.train.watch import Watch, recorder

__all__ = ["arguments", "build", "collate", "ours", "settings"]


def collate(rows: Sequence[dict[str, list[int]]], pad: int) -> dict[str, Any]:
    """Rows as tensors, padded on the right to the longest of them.

    The mask and the labels come from the lengths: a pad token that is also EOS is still trained where it ends a row.
    """
    import torch

    longest = max(len(row["input_ids"]) for row in rows)

    def padded(name: str, filler: int) -> Any:
        return torch.tensor([[*row[name], *[filler] * (longest - len(row[name]))] for row in rows])

    mask = torch.tensor([[1] * len(row["input_ids"]) + [0] * (longest - len(row["input_ids"])) for row in rows])
    return {"input_ids": padded("input_ids", pad), "labels": padded("labels", IGNORE), "attention_mask": mask}


def arguments(config: TrainConfig, folder: Path, *, seed: int, dtype: str, rows: int, watched: int) -> dict[str, Any]:
    """What all of TRL's trainers are told for `config`."""
    import torch

    cuda = torch.cuda.is_available()
    every = config.watch.every if config.watch else None
    micro = config.rows_at_once
    steps = config.max_steps or math.ceil(config.epochs * math.ceil(rows / config.batch_size))
    return {
        "output_dir": str(folder),
        "per_device_train_batch_size": micro,
        "per_device_eval_batch_size": micro,
        "gradient_accumulation_steps": config.batch_size // micro,
        "num_train_epochs": config.epochs,
        "max_steps": config.max_steps or -1,
        "learning_rate": config.learning_rate,
        "lr_scheduler_type": config.schedule if config.schedule != "constant" else "constant_with_warmup",
        "warmup_steps": round(config.warmup * steps),
        "weight_decay": config.weight_decay,
        "max_grad_norm": config.max_grad_norm,
        "neftune_noise_alpha": config.neftune,
        "optim": "paged_adamw_32bit" if cuda and config.adapter == "qlora" else "adamw_torch",
        # Autocast is for GPUs, and for the float32 master weights of a full fine-tune; an adapter on a CPU makes its
        # own products in the base's type.
        "bf16": dtype == "bfloat16" and (cuda or config.adapter == "full"),
        "use_cpu": not cuda,
        "gradient_checkpointing": config.gradient_checkpointing,
        "max_length": None,
        "remove_unused_columns": False,
        "dataloader_num_workers": 0,
        "dataloader_pin_memory": cuda,
        "eval_strategy": "no" if not watched else "steps" if every else "epoch",
        "eval_steps": every,
        "prediction_loss_only": True,
        "logging_strategy": "steps",
        "logging_steps": 1,
        "logging_nan_inf_filter": False,  # it shows the last good loss in place of a broken one
        "save_strategy": "no",  # by time, from the callback
        "save_total_limit": 1,
        "seed": seed,
        "data_seed": seed,
        "report_to": [],
        "disable_tqdm": True,
        "push_to_hub": False,
    }


def settings(config: TrainConfig, folder: Path, *, seed: int, dtype: str, rows: int, watched: int) -> Any:
    """TRL's arguments for supervised fine-tuning."""
    from trl.trainer.sft_config import SFTConfig

    common = arguments(config, folder, seed=seed, dtype=dtype, rows=rows, watched=watched)
    return SFTConfig(**common, packing=False, dataset_kwargs={"skip_prepare_dataset": True})


def ours(base: Any, lengths: Sequence[int], config: TrainConfig) -> Any:
    """One of TRL's trainers with our order of rows, evaluations that leave no trace, and no model card."""
    import torch

    class Ours(base):
        def _get_train_sampler(self, train_dataset=None):
            return sampler(lengths, config.batch_size, seed=self.args.seed)

        def evaluate(self, *args, **kwargs):
            with torch.random.fork_rng():  # dropout goes on as if nobody had looked
                return super().evaluate(*args, **kwargs)

        def create_model_card(self, *args, **kwargs):  # it names local paths
            pass

    return Ours


def build(
    config: TrainConfig,
    arguments: Any,
    model: Any,
    tokenizer: Any,
    train: Sequence[Encoded],
    validation: Sequence[Encoded],
    watch: Watch,
    *,
    peft: Any,
    tolerance: float,
) -> Any:
    """The trainer, ready for `.train()`."""
    from datasets import Dataset
    from transformers import PrinterCallback
    from trl.trainer.sft_trainer import SFTTrainer

    class Trainer(ours(SFTTrainer, [len(row.input_ids) for row in train], config)):
        _plain: bool | None = None
        _share: bool = False

        def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
            if self._plain is None:
                # On a GPU TRL's own loss scores trained positions only; under a wrapper (DDP, FSDP) the inner
                # modules must not be called past it.
                ours = self.args.device.type == "cpu" and self.accelerator.num_processes == 1
                ours = ours and not return_outputs
                counts, shares = agrees(model, inputs, tolerance=tolerance) if ours else (False, False)
                # Checkpointed layers run twice and must not append to a cache twice; noise is each row's own.
                alone = self.args.gradient_checkpointing or config.neftune is not None
                self._plain, self._share = not counts, shares and not alone
            if model.training:
                watch.tokens += int(inputs["attention_mask"].sum())
                watch.trained += int((inputs["labels"] != IGNORE).sum())
            if self._plain:
                return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
            total = token_loss(model, inputs, share=self._share)
            count = num_items_in_batch if num_items_in_batch is not None else (inputs["labels"][:, 1:] != IGNORE).sum()
            return total / count

    def joined(rows: Any) -> dict[str, Any]:
        return collate(rows, tokenizer.pad_token_id)

    def dataset(rows: Sequence[Encoded]) -> Any:
        return Dataset.from_dict({"input_ids": [row.input_ids for row in rows], "labels": [row.labels for row in rows]})

    trainer = Trainer(
        model=model,
        args=arguments,
        data_collator=joined,
        train_dataset=dataset(train),
        eval_dataset=dataset(validation) if validation else None,
        processing_class=tokenizer,
        peft_config=peft,
        callbacks=[recorder(watch)],
    )
    trainer.remove_callback(PrinterCallback)  # it prints to stdout, which belongs to the command's result
    return trainer
