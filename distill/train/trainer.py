# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false, reportUnknownParameterType=false, reportMissingParameterType=false
# trl and transformers are only partly typed.
"""What all trainings tell TRL: our order of rows, our checkpoints, and none of what writes paths or cards.

Classes here need torch when they are made, so `ours` makes them on first use and the module stays cheap to import.

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
from distill.train import team
from distill.train.order import sampler
from distill.train.template import IGNORE
from distill.train.watch import Watch, recorder

__all__ = ["arguments", "assemble", "collate", "ours", "settings"]


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
    share = team.share_of(config.batch_size)
    micro = math.gcd(config.rows_at_once, share)
    steps = config.max_steps or math.ceil(config.epochs * math.ceil(rows / config.batch_size))
    return {
        "output_dir": str(folder),
        "per_device_train_batch_size": micro,
        "per_device_eval_batch_size": micro,
        "gradient_accumulation_steps": share // micro,
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
        "ddp_find_unused_parameters": False,  # there are none, and the search walks the graph on every pass
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


def settings(
    config: TrainConfig, folder: Path, *, seed: int, dtype: str, rows: int, watched: int, whole: bool = False
) -> Any:
    """TRL's arguments for supervised fine-tuning.

    Args:
        whole: the loader hands over whole updates, and the trainer cuts them itself, as that of `supervised.py` does.
    """
    from trl.trainer.sft_config import SFTConfig

    common = arguments(config, folder, seed=seed, dtype=dtype, rows=rows, watched=watched)
    if whole:
        common |= {"per_device_train_batch_size": team.share_of(config.batch_size), "gradient_accumulation_steps": 1}
    return SFTConfig(**common, packing=False, dataset_kwargs={"skip_prepare_dataset": True})


def ours(base: Any, lengths: Sequence[int], config: TrainConfig) -> Any:
    """One of TRL's trainers with our order of rows, evaluations that leave no trace, and no model card."""
    import torch

    class Ours(base):
        def _get_train_sampler(self, train_dataset=None):
            return sampler(lengths, config.batch_size, seed=self.args.seed)  # the same in every process

        def evaluate(self, *args, **kwargs):
            with torch.random.fork_rng():  # dropout goes on as if nobody had looked
                return super().evaluate(*args, **kwargs)

        def create_model_card(self, *args, **kwargs):  # it names local paths
            pass

    return Ours


def assemble(
    kind: Any,
    data: Sequence[Any],
    *,
    model: Any,
    arguments: Any,
    tokenizer: Any,
    watch: Watch,
    peft: Any,
    collate: Any = None,
    **more: Any,
) -> Any:
    """The trainer of class `kind`, ready for `.train()`.

    Args:
        data: training and validation rows as datasets; None for no validation.
        collate: from rows to a batch; None: the trainer's own.
        more: what only this kind takes.
    """
    from transformers import PrinterCallback

    train, validation = data
    trainer = kind(
        model=model,
        args=arguments,
        train_dataset=train,
        eval_dataset=validation,
        processing_class=tokenizer,
        peft_config=peft,
        callbacks=[recorder(watch)],
        **({"data_collator": collate} if collate is not None else {}),
        **more,
    )
    trainer.remove_callback(PrinterCallback)  # it prints to stdout, which belongs to the command's result
    return trainer
