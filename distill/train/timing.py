# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# torch and transformers are only partly typed.
"""How long a training will take: its parts, timed on models of one and of three layers, and a line through both.

They are a pass of the usual batch, the optimiser's update, what is tried out on the first update, and a batch that the
teacher reads. What they cost the processor says how much work there is; how long that takes depends on who else wants
the machine, and is an interval.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import Any

from distill.recipe import TrainConfig
from distill.train.job import Job, micro_batches
from distill.train.pace import Clock, Duration
from distill.train.ready import attention_of
from distill.train.step import Shape, best_tokens, few_of, one_step
from distill.train.tracing import frozen_model, small_model

__all__ = ["seconds"]


def seconds(config: TrainConfig, job: Job) -> Duration:
    """The duration of the training."""
    import torch

    shapes = list(micro_batches(config, job))
    usual = Shape(
        *(round(statistics.mean(getattr(s, n) for s in shapes)) for n in ("rows", "tokens", "shared", "trained"))
    )
    longest = max(len(ids) for row in job.sequences for ids, _, _ in row)
    attention = attention_of(config, job.model.get_text_config(), longest, sides=len(job.sequences[0]))
    clock, device = Clock(job.cpu), "cpu" if job.cpu else "cuda"
    asked = config.distillation.top_k is not None
    small: dict[str, Any] = {"dtype": job.dtype, "attention": attention}
    with torch.device(device):
        teacher = frozen_model(job.teacher, layers=1, **small) if job.teacher is not None and not asked else None
        found: list[tuple[float, ...]] = []
        for count in (1, 3):
            model = small_model(config, job.model, layers=count, cpu=job.cpu, **small)
            found.append(_timed(config, job, model, usual, clock, teacher))
            del model
    each, update, look = _through(found, job.model)
    rows = len(job.sequences)
    updates = config.max_steps or math.ceil(config.epochs * math.ceil(rows / config.batch_size))
    epochs = config.epochs if config.max_steps is None else updates * config.batch_size / rows
    if job.teacher is not None:
        with torch.device(device):
            few = [frozen_model(job.teacher, layers=count, **small) for count in (1, 3)]
        found = [_timed_teacher(config, one, usual, clock) for one in few]
        (once,) = _through(found, job.teacher)
        if asked:
            look += once * len(shapes)
        else:
            each += once - found[0][0]  # its first layer, and its head, are in `each`
    return clock.duration(each * len(shapes) * epochs + update * updates + look)


def _through(found: Sequence[tuple[float, ...]], model: Any) -> tuple[float, ...]:
    """What was timed on one and on three layers, for as many as the model has."""
    layers = model.get_text_config().num_hidden_layers
    return tuple(one + (layers - 1) / 2 * max(0.0, three - one) for one, three in zip(*found, strict=True))


def _timed(
    config: TrainConfig, job: Job, model: Any, usual: Shape, clock: Clock, teacher: Any
) -> tuple[float, float, float]:
    """Seconds of a pass, of an update, and of the tries on the first batch (`loss.agrees`: three forward passes)."""
    import torch

    how: dict[str, Any] = {"device": "cpu" if job.cpu else "cuda", "dtype": job.dtype}
    each = clock.fastest(lambda: one_step(config, model, usual, teacher=teacher, **how), 3)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimiser = torch.optim.AdamW(trained)

    def update() -> None:
        torch.nn.utils.clip_grad_norm_(trained, config.max_grad_norm)
        optimiser.step()

    updating = clock.fastest(update, 2)
    if not job.cpu:
        return each, updating, 0.0
    few, plain = few_of(usual), config.model_copy(update={"method": "sft"})
    look = 3 * clock.fastest(lambda: one_step(plain, model, few, backward=False, **how), 1)
    return each, updating, look


def _timed_teacher(config: TrainConfig, teacher: Any, usual: Shape, clock: Clock) -> tuple[float]:
    """Seconds of a batch that a teacher reads."""
    return (clock.fastest(lambda: best_tokens(config, teacher, usual, teacher.device.type), 2),)
