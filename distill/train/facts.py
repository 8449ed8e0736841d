# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# transformers' trainer is only partly typed.
"""What every training reports of itself, whatever its method: updates, losses, tokens, time, memory, versions."""

from __future__ import annotations

import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

from distill.recipe import TrainConfig
from distill.train.memory import peak_memory
from distill.train.ready import device
from distill.train.watch import Watch

__all__ = ["run_facts"]


def run_facts(
    config: TrainConfig, trainer: Any, watch: Watch, *, started: float, resumed: Path | None
) -> dict[str, Any]:
    """The figures of a finished training.

    Args:
        started: `time.monotonic()` when the call began.
        resumed: the checkpoint it went on from.
    """
    seconds = max(time.monotonic() - watch.started, 1e-9)
    cpu = time.process_time() - watch.cpu_started
    # After an interruption the trainer's own history holds the updates of all sessions.
    losses = [{"step": entry["step"], "loss": entry["loss"]} for entry in trainer.state.log_history if "loss" in entry]
    watched = [entry for entry in trainer.state.log_history if "eval_loss" in entry]
    validation = [entry["eval_loss"] for entry in watched]
    first, last = losses[: max(1, len(losses) // 10)], losses[-max(1, len(losses) // 10) :]
    return {
        "method": config.method,
        "adapter": config.adapter,
        "steps": trainer.state.global_step,
        "epochs": round(trainer.state.epoch or 0.0, 3),
        "loss_first": round(sum(p["loss"] for p in first) / max(1, len(first)), 4),
        "loss_last": round(sum(p["loss"] for p in last) / max(1, len(last)), 4),
        "validation_loss": round(validation[-1], 4) if validation else None,
        "tokens": watch.tokens,
        "trained_tokens": watch.trained,
        "tokens_per_second": round(watch.tokens / seconds, 1),
        "seconds_per_step": round(seconds / max(1, trainer.state.global_step - watch.first_step), 3),
        "train_seconds": round(seconds, 1),
        "train_cpu_seconds": round(cpu, 1),
        "trainable_parameters": sum(p.numel() for p in trainer.model.parameters() if p.requires_grad),
        "device": device(),
        "losses": losses,
        "validation_losses": validation,
        "validation_points": [{"step": entry["step"], "loss": entry["eval_loss"]} for entry in watched],
        "resumed_from": int(resumed.name.split("-")[-1]) if resumed else 0,
        "seconds": round(time.monotonic() - started, 1),
        "peak_memory_bytes": peak_memory(),
        "config": {**config.model_dump(mode="json"), "model": Path(config.model).name},
        "versions": {name: version(name) for name in ("torch", "transformers", "trl", "peft", "bitsandbytes")},
    }
