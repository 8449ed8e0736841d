# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false, reportUnknownParameterType=false, reportMissingParameterType=false
# trl and transformers are only partly typed.
"""TRL's SFTTrainer with our loss on CPUs, and updates that are cut to the memory there is.

The loader hands over the rows of a whole update. How they go through the model is decided here, pass by pass: packed
where the settings say so, and with half the rows at once when memory runs out. Rows, loss and gradient of the update
stay what they are.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Sequence
from typing import Any

from distill.errors import InputError, RunError
from distill.recipe import TrainConfig
from distill.train import team
from distill.train.loss import agrees, token_loss
from distill.train.memory import free_memory, ran_out
from distill.train.passes import cut, flat, fuller, gather, keeps_apart
from distill.train.template import IGNORE, Encoded
from distill.train.trainer import assemble, collate, ours
from distill.train.watch import Watch

__all__ = ["build"]


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
    from trl.trainer.sft_trainer import SFTTrainer

    packed = config.packing == "bfd"

    class Trainer(ours(SFTTrainer, [len(row.input_ids) for row in train], config)):
        _plain: bool | None = None
        _share: bool = False
        at_once: int = math.gcd(config.rows_at_once, team.share_of(config.batch_size))
        """Sequences of a forward pass."""

        def training_step(self, model, inputs, num_items_in_batch=None):
            """All passes of one update; where memory does not suffice, again with half the rows at once."""
            model.train()
            inputs = self._prepare_inputs(inputs)
            if self._plain is None:
                self._look_at(model, inputs)
            if num_items_in_batch is None:
                num_items_in_batch = team.total(int((inputs["labels"][:, 1:] != IGNORE).sum()))[0]
            while True:
                try:
                    loss = self._passes(model, inputs, num_items_in_batch)
                    break
                except RuntimeError as error:
                    if not ran_out(error):
                        raise
                    self._halve()
                # Past the handler nothing holds the tensors of the pass that failed. Its gradients are this update's
                # alone: updates are not accumulated over calls.
                model.zero_grad()
                free_memory()
            tokens, trained = int(inputs["attention_mask"].sum()), int((inputs["labels"] != IGNORE).sum())
            tokens, trained = team.total(tokens, trained)
            watch.tokens += tokens
            watch.trained += trained
            return loss

        def _passes(self, model, inputs, count):
            room = config.max_length if packed else None
            parts = cut(inputs["attention_mask"].sum(1).tolist(), self.at_once, room=room)
            if packed and team.members() > 1:
                parts = fuller(parts, team.most(len(parts)))
            whole = 0.0
            for number, part in enumerate(parts, 1):
                batch = gather(inputs, part, packed=packed, pad=tokenizer.pad_token_id)
                if packed and self.model.config._attn_implementation.startswith("flash"):
                    batch = flat(batch)
                # Gradients of several processes are summed once an update.
                alone = self.accelerator.no_sync(model) if number < len(parts) else contextlib.nullcontext()
                with alone:
                    with self.compute_loss_context_manager():
                        loss = self.compute_loss(model, batch, num_items_in_batch=count)
                    self.accelerator.backward(loss)
                whole = whole + loss.detach()
            return whole

        def _halve(self):
            if self.at_once == 1 or team.members() > 1:
                raise RunError(
                    f"out of memory with {self.at_once} {'sequences' if packed else 'rows'} at once",
                    hint="set gradient_checkpointing: true, adapter: qlora, a smaller max_length"
                    + (f", or micro_batch_size: {self.at_once // 2}" if self.at_once > 1 else ""),
                ) from None
            self.at_once = max(size for size in range(1, self.at_once // 2 + 1) if self.at_once % size == 0)
            watch.line({"step": self.state.global_step, "out_of_memory": True, "micro_batch_size": self.at_once})

        def _look_at(self, model, inputs):
            """What this model allows, tried on the first update."""
            # On a GPU TRL's own loss scores trained positions only; under a wrapper (DDP, FSDP) the inner
            # modules must not be called past it.
            ours = self.args.device.type == "cpu" and self.accelerator.num_processes == 1
            with self.accelerator.autocast():
                counts, shares = agrees(model, inputs, tolerance=tolerance) if ours else (False, False)
            # Checkpointed layers run twice and must not append to a cache twice; noise is each row's own.
            alone = self.args.gradient_checkpointing or config.neftune is not None or packed
            self._plain, self._share = not counts, shares and not alone
            if packed and not keeps_apart(model, inputs, tolerance=tolerance):
                raise InputError(
                    "packed rows see each other in this model",
                    field="train.packing",
                    hint="leave packing out: rows are then passed through the model one beside the other",
                )

        def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
            if self._plain is None or self._plain or return_outputs:
                return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
            with self.accelerator.autocast():  # it wraps the model's own forward pass, which is not called here
                total = token_loss(model, inputs, share=self._share)
            count = num_items_in_batch if num_items_in_batch is not None else (inputs["labels"][:, 1:] != IGNORE).sum()
            return total / count

    def joined(rows: Any) -> dict[str, Any]:
        return collate(rows, tokenizer.pad_token_id)

    def dataset(rows: Sequence[Encoded]) -> Any:
        return Dataset.from_dict({"input_ids": [row.input_ids for row in rows], "labels": [row.labels for row in rows]})

    splits = dataset(train), dataset(validation) if validation else None
    return assemble(
        Trainer, splits, model=model, arguments=arguments, tokenizer=tokenizer, watch=watch, peft=peft, collate=joined
    )
