# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportMissingImports=false
# tensorboard is optional.
"""The curves of a training as TensorBoard event files, for those who watch many trainings side by side."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from distill.errors import InputError

__all__ = ["board"]

_GROUPS = {"loss": "train", "learning_rate": "train", "grad_norm": "train", "validation_loss": "validation"}
_NO_CURVES = ("step", "epoch", "seconds", "tokens", "micro_batch_size", "out_of_memory")


def board(folder: Path) -> Callable[[int, Mapping[str, Any]], None]:
    """A function that writes the numbers of a step into event files in `folder`.

    Raises:
        InputError: the package `tensorboard` is not installed.
    """
    if find_spec("tensorboard") is None:
        raise InputError(
            "needs the package tensorboard",
            field="train.tensorboard",
            hint="pip install 'distill[tensorboard]', or leave it out: log.jsonl holds the same figures",
        )
    from torch.utils.tensorboard import SummaryWriter

    writer: Any = SummaryWriter(str(folder))

    def write(step: int, figures: Mapping[str, Any]) -> None:
        for name, value in figures.items():
            if name not in _NO_CURVES and isinstance(value, (int, float)):
                writer.add_scalar(f"{_GROUPS.get(name, 'task')}/{name}", value, step)
        writer.flush()

    return write
