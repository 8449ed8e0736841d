"""The most memory that training or generation held: on the GPU where one was used, else in main memory."""

from __future__ import annotations

import sys

from distill.io import memory

__all__ = ["peak_memory"]


def peak_memory() -> int:
    """Bytes."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available() and torch.cuda.is_initialized():
        return int(torch.cuda.max_memory_allocated())
    return memory.peak_memory()
