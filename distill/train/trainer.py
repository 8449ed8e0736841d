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
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from distill.errors import RunError
from distill.recipe import TrainConfig
from distill.train.loss import agrees, token_loss
from distill.train.order import sampler
from distill.train.template import IGNORE, Encoded

__all__ = ["Progress", "Watch", "build", "collate", "settings"]

_CHECKPOINT_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Progress:
    """Where the training stands; one for every update."""

    step: int
    steps: int
    epoch: float
    loss: float | None
    """Mean over the trained tokens of the last update."""
    tokens_per_second: float
    """Tokens of rows (padding not counted) over this session."""
    seconds_left: float | None
    validation_loss: float | None = None


@dataclass
class Watch:
    """What a training session records, and the two ways out of it."""

    progress: Callable[[Progress], None] = lambda _: None
    stop: Callable[[], bool] = lambda: False
    """Asked after every update; true saves a checkpoint and ends the session."""
    log: Path | None = None
    clock: Callable[[], float] = time.monotonic
    points: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    validation: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    tokens: int = 0
    trained: int = 0
    stopped: bool = False
    started: float = 0.0
    first_step: int = 0

    def line(self, values: dict[str, Any]) -> None:
        if self.log is not None:
            with self.log.open("ab") as file:
                file.write(orjson.dumps(values, option=orjson.OPT_APPEND_NEWLINE))


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


def settings(config: TrainConfig, folder: Path, *, seed: int, dtype: str, rows: int, watched: int) -> Any:
    """TRL's arguments for `config`."""
    import torch
    from trl.trainer.sft_config import SFTConfig

    cuda = torch.cuda.is_available()
    micro = config.micro_batch_size or config.batch_size
    steps = config.max_steps or math.ceil(config.epochs * math.ceil(rows / config.batch_size))
    return SFTConfig(
        output_dir=str(folder),
        per_device_train_batch_size=micro,
        per_device_eval_batch_size=micro,
        gradient_accumulation_steps=config.batch_size // micro,
        num_train_epochs=config.epochs,
        max_steps=config.max_steps or -1,
        learning_rate=config.learning_rate,
        lr_scheduler_type=config.schedule if config.schedule != "constant" else "constant_with_warmup",
        warmup_steps=round(config.warmup * steps),
        weight_decay=config.weight_decay,
        max_grad_norm=config.max_grad_norm,
        optim="paged_adamw_32bit" if cuda and config.adapter == "qlora" else "adamw_torch",
        # Autocast is for GPUs, and for the float32 master weights of a full fine-tune; an adapter on a CPU makes its
        # own products in the base's type.
        bf16=dtype == "bfloat16" and (cuda or config.adapter == "full"),
        use_cpu=not cuda,
        gradient_checkpointing=config.gradient_checkpointing,
        max_length=None,
        packing=False,
        dataset_kwargs={"skip_prepare_dataset": True},
        remove_unused_columns=False,
        dataloader_num_workers=0,
        dataloader_pin_memory=cuda,
        eval_strategy="epoch" if watched else "no",
        prediction_loss_only=True,
        logging_strategy="steps",
        logging_steps=1,
        logging_nan_inf_filter=False,  # it shows the last good loss in place of a broken one
        save_strategy="no",  # by time, from the callback
        save_total_limit=1,
        seed=seed,
        data_seed=seed,
        report_to=[],
        disable_tqdm=True,
        push_to_hub=False,
    )


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
    import torch
    from datasets import Dataset
    from transformers import PrinterCallback, TrainerCallback
    from trl.trainer.sft_trainer import SFTTrainer

    class Trainer(SFTTrainer):
        _plain: bool | None = None
        _share: bool = False

        def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
            if self._plain is None:
                # On a GPU TRL's own loss scores trained positions only; under a wrapper (DDP, FSDP) the inner
                # modules must not be called past it.
                ours = self.args.device.type == "cpu" and self.accelerator.num_processes == 1
                ours = ours and not return_outputs
                counts, shares = agrees(model, inputs, tolerance=tolerance) if ours else (False, False)
                # Checkpointed layers run twice and must not append to a cache twice.
                self._plain, self._share = not counts, shares and not self.args.gradient_checkpointing
            if model.training:
                watch.tokens += int(inputs["attention_mask"].sum())
                watch.trained += int((inputs["labels"] != IGNORE).sum())
            if self._plain:
                return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
            total = token_loss(model, inputs, share=self._share)
            count = num_items_in_batch if num_items_in_batch is not None else (inputs["labels"][:, 1:] != IGNORE).sum()
            return total / count

        def _get_train_sampler(self, train_dataset=None):
            return sampler([len(row.input_ids) for row in train], config.batch_size, seed=self.args.seed)

        def evaluate(self, *args, **kwargs):
            with torch.random.fork_rng():  # dropout goes on as if nobody had looked
                return super().evaluate(*args, **kwargs)

        def create_model_card(self, *args, **kwargs):  # it names local paths
            pass

    class Recorder(TrainerCallback):
        saved = 0.0

        def on_train_begin(self, args, state, control, **kwargs):
            watch.started = self.saved = watch.clock()
            watch.first_step = state.global_step

        def on_step_end(self, args, state, control, **kwargs):
            now = watch.clock()
            if watch.stop() and state.global_step < state.max_steps:
                watch.stopped = True
                control.should_save = control.should_training_stop = True
            elif now - self.saved >= _CHECKPOINT_SECONDS and state.global_step < state.max_steps:
                control.should_save = True
                self.saved = now

        def on_log(self, args, state, control, logs=None, **kwargs):
            logs = logs or {}
            now = watch.clock()
            if "eval_loss" in logs:
                point = {"step": state.global_step, "epoch": state.epoch, "validation_loss": logs["eval_loss"]}
                watch.validation.append(point)
                watch.line(point)
            if "loss" not in logs:
                return
            loss, norm = float(logs["loss"]), logs.get("grad_norm")
            point = {"step": state.global_step, "loss": loss, "learning_rate": logs.get("learning_rate")}
            point["grad_norm"] = float(norm) if norm is not None else None
            watch.points.append(point)
            seconds = max(now - watch.started, 1e-9)
            watch.line({**point, "seconds": round(seconds, 2), "tokens": watch.tokens})
            if not math.isfinite(loss):
                raise RunError(
                    f"the loss is {loss} at step {state.global_step}",
                    hint="lower learning_rate, or train with dtype: float32",
                )
            done = state.global_step - watch.first_step
            left = (state.max_steps - state.global_step) * seconds / done if done else None
            last = watch.validation[-1]["validation_loss"] if watch.validation else None
            watch.progress(
                Progress(
                    state.global_step, state.max_steps, state.epoch or 0.0, loss, watch.tokens / seconds, left, last
                )
            )

    def dataset(rows: Sequence[Encoded]) -> Any:
        return Dataset.from_dict({"input_ids": [row.input_ids for row in rows], "labels": [row.labels for row in rows]})

    trainer = Trainer(
        model=model,
        args=arguments,
        data_collator=lambda rows: collate(rows, tokenizer.pad_token_id),
        train_dataset=dataset(train),
        eval_dataset=dataset(validation) if validation else None,
        processing_class=tokenizer,
        peft_config=peft,
        callbacks=[Recorder()],
    )
    trainer.remove_callback(PrinterCallback)  # it prints to stdout, which belongs to the command's result
    return trainer
