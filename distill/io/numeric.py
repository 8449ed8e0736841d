"""Settings of the numeric libraries that can only be made before they are loaded.

How threads wait for each other: a moment awake, then asleep. A step of a small model is a thousand parallel sections of
some microseconds. Threads that sleep at once are woken as often, which costs a third of the step; threads that spin
until they are needed (the libraries' default) take the cores from filters and neighbours. So they spin for about a
tenth of a millisecond. With two cores, a 1.5B model's step of 48 rows: 0.80 s asleep at once, 0.5 to 0.56 s so; a
training of a 135M model: 235 and 327 tokens a second.

How many compiled matrix products are kept: a product is compiled for its shape, with scratch memory of its own, and a
thousand of them are kept by default, in two places. A training whose batches have all lengths then holds a gigabyte of
them: 36 updates of 8 rows of a 135M model held 3.05 GB, and hold 2.33 GB, in the same time. One step needs some forty.

Large pages for large tensors, where the kernel gives them to who asks: the holes between tensors are fewer, and a step
of 8 rows of 512 tokens took 56 instead of 65 CPU seconds and 5.9 instead of 6.4 GB (SmolLM2-135M, LoRA).
"""

from __future__ import annotations

import os

__all__ = ["WAITING", "prepare"]

WAITING = {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "10000"}
"""How threads wait: for the environment of any program that uses OpenMP."""

_KEPT = {"ONEDNN_PRIMITIVE_CACHE_CAPACITY": "64", "LRU_CACHE_CAPACITY": "64"}
"""Compiled products that oneDNN keeps, and torch over it."""

_PAGES = {"THP_MEM_ALLOC_ENABLE": "1"}
"""Torch asks for large pages."""


def prepare() -> None:
    """Make them for this process, before torch is imported. What the user has set stays."""
    for name, value in {**WAITING, **_KEPT, **_PAGES}.items():
        os.environ.setdefault(name, value)
