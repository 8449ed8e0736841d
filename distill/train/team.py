# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# torch and accelerate are only partly typed.
"""Several processes of one training, as `accelerate launch` starts them: all train, the first one decides and writes.

The launcher tells every process its number and their count in the environment; without it there is one process, and
everything here does nothing. What depends on the clock, the disk or a signal is decided by the first process alone:
processes that decide for themselves sooner or later wait for each other for ever.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, TypeVar

from distill.errors import InputError

__all__ = ["agreed", "join", "leads", "members", "most", "share_of", "total"]

T = TypeVar("T")


def members() -> int:
    """Processes of this training."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def leads() -> bool:
    """True in the process that writes and speaks."""
    return int(os.environ.get("RANK", "0")) == 0


def join() -> None:
    """Meet the other processes: each gets its device, and they can talk. Does nothing where there is one process."""
    if members() > 1:
        import torch
        from accelerate import PartialState

        PartialState(cpu=not torch.cuda.is_available())


def share_of(batch_size: int) -> int:
    """Rows of an update for each process.

    Raises:
        InputError: they cannot be shared evenly.
    """
    count = members()
    if batch_size % count:
        raise InputError(
            f"{batch_size} rows per update cannot be shared by {count} processes",
            field="train.batch_size",
            hint=f"use a multiple of {count}",
        )
    return batch_size // count


def agreed(choose: Callable[[], T]) -> T:
    """What `choose` gives in the first process; it is not called in the others.

    Raises:
        SystemExit: in the other processes, when `choose` raised in the first one, which reports it.
    """
    if members() == 1:
        return choose()
    from accelerate.utils import broadcast_object_list

    found: list[Any] = [False, None]
    failure: Exception | None = None
    if leads():
        try:
            found = [True, choose()]
        except Exception as error:
            failure = error
    broadcast_object_list(found)
    if failure is not None:
        raise failure
    if not found[0]:
        raise SystemExit(1)
    return found[1]


def total(*counts: int) -> list[int]:
    """Each figure summed over the processes."""
    return _reduced(counts, "SUM")


def most(count: int) -> int:
    """The largest of the processes' figures."""
    return _reduced((count,), "MAX")[0]


def _reduced(counts: tuple[int, ...], how: str) -> list[int]:
    if members() == 1:
        return list(counts)
    import torch
    from torch import distributed

    device = torch.device("cuda", torch.cuda.current_device()) if torch.cuda.is_available() else torch.device("cpu")
    values = torch.tensor(counts, dtype=torch.int64, device=device)
    distributed.all_reduce(values, op=getattr(distributed.ReduceOp, how))
    return values.tolist()
