# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false, reportUnknownParameterType=false, reportMissingParameterType=false
# transformers' callbacks are untyped.
"""What a training says while it runs: progress, the log file, checkpoints by time, and the two ways to end early.

One callback serves every method of training. It is made in a function, because its base class needs transformers.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from distill.errors import RunError
from distill.train import team

__all__ = ["Progress", "Watch", "recorder"]

_CHECKPOINT_SECONDS = 60.0

_FIGURES = {"rewards/accuracies": "accuracy", "rewards/margins": "margin", "divergence": "divergence"}
"""What trainers call the figures beside the loss, and what they are called here."""


@dataclass(frozen=True, slots=True)
class Progress:
    """Where the training stands; one for every update."""

    step: int
    steps: int
    epoch: float
    loss: float | None
    """Mean over the trained tokens (of preference training: over the pairs) of the last update."""
    tokens_per_second: float
    """Tokens of rows (padding not counted) over this session."""
    seconds_left: float | None
    validation_loss: float | None = None
    figures: Mapping[str, float] = field(default_factory=dict[str, float])
    """What else is known: accuracy and margin of preference training, the last score on the task metric (`task`)."""


@dataclass
class Watch:
    """What a training session records, and the two ways out of it."""

    progress: Callable[[Progress], None] = lambda _: None
    stop: Callable[[], bool] = lambda: False
    """Asked after every update; true saves a checkpoint and ends the session."""
    log: Path | None = None
    board: Callable[[int, Mapping[str, Any]], None] | None = None
    """Is given every line of the log too."""
    clock: Callable[[], float] = time.monotonic
    points: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    validation: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    tokens: int = 0
    trained: int = 0
    stopped: bool = False
    started: float = 0.0
    cpu_started: float = 0.0
    """CPU seconds of this process when the first update began."""
    first_step: int = 0
    task: float | None = None
    """The last score on the task metric."""

    def line(self, values: dict[str, Any]) -> None:
        if self.log is not None:
            with self.log.open("ab") as file:
                file.write(orjson.dumps(values, option=orjson.OPT_APPEND_NEWLINE))
        if self.board is not None:
            self.board(values["step"], values)


def recorder(watch: Watch) -> Any:
    """The callback that keeps `watch`."""
    from transformers import TrainerCallback

    class Recorder(TrainerCallback):
        saved = 0.0

        def on_train_begin(self, args, state, control, **kwargs):
            watch.started = self.saved = watch.clock()
            watch.cpu_started = time.process_time()
            watch.first_step = state.global_step

        def on_step_end(self, args, state, control, **kwargs):
            now = watch.clock()
            stop, due = team.agreed(lambda: (watch.stop(), now - self.saved >= _CHECKPOINT_SECONDS))
            if stop and state.global_step < state.max_steps:
                watch.stopped = True
                control.should_save = control.should_training_stop = True
            elif due and state.global_step < state.max_steps:
                control.should_save = True
                self.saved = now

        def on_log(self, args, state, control, logs=None, **kwargs):
            logs = logs or {}
            now = watch.clock()
            if "eval_loss" in logs:
                point = {"step": state.global_step, "epoch": state.epoch, "validation_loss": logs["eval_loss"]}
                point |= {name: logs[f"eval_{key}"] for key, name in _FIGURES.items() if f"eval_{key}" in logs}
                watch.validation.append(point)
                watch.line(point)
            if "loss" not in logs:
                return
            loss, norm = float(logs["loss"]), logs.get("grad_norm")
            point = {"step": state.global_step, "loss": loss, "learning_rate": logs.get("learning_rate")}
            point["grad_norm"] = float(norm) if norm is not None else None
            figures = {name: float(logs[key]) for key, name in _FIGURES.items() if key in logs}
            point |= figures
            if watch.task is not None:
                figures["task"] = watch.task
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
            epoch, speed = state.epoch or 0.0, watch.tokens / seconds
            watch.progress(Progress(state.global_step, state.max_steps, epoch, loss, speed, left, last, figures))

    return Recorder()
