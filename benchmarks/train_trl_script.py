"""The TRL script of `benchmarks train_trl`, run in a process of its own: WAY (`trl` or `trl-tuned`), ROWS, OUT.

As TRL's documentation has it: rows of prompt and completion (so the loss is that of the answers), a LoRA, the trainer.
Prints one JSON object with the figures that `distill train` prints of itself.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.train_trl import BATCH, MODEL, RANK, RATE, SEED
from distill.io.numeric import WAITING


def main() -> None:
    way, rows, out = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
    os.environ |= {"HF_HUB_OFFLINE": "1", **WAITING}
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import TrainerCallback
    from trl.trainer.sft_config import SFTConfig
    from trl.trainer.sft_trainer import SFTTrainer

    from distill.io.memory import peak_memory
    from distill.train import locate

    talks = [json.loads(line)["messages"] for line in rows.read_text().splitlines()]
    tuned: dict[str, Any] = {"gradient_checkpointing": False, "bf16": False} if way == "trl-tuned" else {}
    begun: list[tuple[float, float]] = []

    class Clock(TrainerCallback):
        def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            begun.append((time.monotonic(), time.process_time()))

    trainer = SFTTrainer(
        model=str(locate(MODEL).folder),
        args=SFTConfig(
            output_dir=str(out),
            model_init_kwargs={"dtype": "bfloat16"},
            num_train_epochs=1,
            per_device_train_batch_size=BATCH,
            learning_rate=RATE,
            lr_scheduler_type="cosine",
            warmup_steps=0.05,
            seed=SEED,
            use_cpu=True,
            # Beside the point here: where figures go, and checkpoints, which `distill train` would write by time.
            report_to=[],
            save_strategy="no",
            logging_steps=1,
            disable_tqdm=True,
            **tuned,
        ),
        train_dataset=Dataset.from_list([{"prompt": talk[:-1], "completion": talk[-1:]} for talk in talks]),
        peft_config=LoraConfig(
            r=RANK, lora_alpha=2 * RANK, lora_dropout=0.0, target_modules="all-linear", task_type="CAUSAL_LM"
        ),
        callbacks=[Clock()],
    )
    tokens = sum(len(ids) for ids in trainer.train_dataset["input_ids"])  # pyright: ignore
    trainer.train()
    seconds, cpu = time.monotonic() - begun[0][0], time.process_time() - begun[0][1]
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    late = losses[-max(1, len(losses) // 10) :]
    figures = {
        "tokens": tokens,
        "tokens_per_second": tokens / seconds,
        "train_seconds": seconds,
        "train_cpu_seconds": cpu,
        "loss_last": round(sum(late) / len(late), 4),
        "peak_memory_bytes": peak_memory(),
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
