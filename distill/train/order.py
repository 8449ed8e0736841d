# pyright: reportUnknownMemberType=false
# torch's samplers are only partly typed.
"""The order of rows: random between batches, alike in length within them.

A pure function of (seed, epoch). The usual samplers draw from torch's global generator, which a pass over the
validation rows advances: watching the loss would change the training, and a resumed training would see other rows.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from typing import Any

__all__ = ["batches", "sampler"]

_WINDOW = 32
"""Batches whose rows are sorted together: wide enough to save padding, narrow enough to keep batches random."""


def batches(lengths: Sequence[int], size: int, *, seed: int, epoch: int) -> list[list[int]]:
    """Row numbers in batches of `size`; the one that is not full comes last.

    In the first epoch the longest row comes first: what does not fit into memory fails at once.
    """
    draw = random.Random(f"{seed}/{epoch}")  # noqa: S311 - an order, not a secret
    order = list(range(len(lengths)))
    draw.shuffle(order)
    full = len(order) - len(order) % size
    made: list[list[int]] = []
    for start in range(0, full, size * _WINDOW):
        window = sorted(order[start : min(start + size * _WINDOW, full)], key=lambda i: -lengths[i])
        made += [window[i : i + size] for i in range(0, len(window), size)]
    draw.shuffle(made)
    if epoch == 0 and made:
        longest = max(range(len(made)), key=lambda k: max(lengths[i] for i in made[k]))
        made.insert(0, made.pop(longest))
    return made + ([order[full:]] if full < len(order) else [])


def sampler(lengths: Sequence[int], size: int, *, seed: int) -> Any:
    """A torch sampler over `batches`, told the epoch by the trainer."""
    from torch.utils.data import Sampler

    class ByLength(Sampler[int]):
        epoch = 0

        def set_epoch(self, epoch: int) -> None:
            self.epoch = epoch

        def __len__(self) -> int:
            return len(lengths)

        def __iter__(self) -> Iterator[int]:
            for batch in batches(lengths, size, seed=seed, epoch=self.epoch):
                yield from batch

    return ByLength()
