"""The most memory that training or generation held, on the GPU where one was used, else in main memory; and its end."""

from __future__ import annotations

import sys

from distill.io import memory

__all__ = ["free_memory", "peak_memory", "ran_out"]


def peak_memory() -> int:
    """Bytes."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available() and torch.cuda.is_initialized():
        return int(torch.cuda.max_memory_allocated())
    return memory.peak_memory()


def ran_out(error: BaseException) -> bool:
    """True if `error` says that a tensor found no room, on a GPU or in main memory."""
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(error, torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and "DefaultCPUAllocator" in str(error)


def free_memory() -> None:
    """Give back what the allocator keeps for later."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        torch.cuda.empty_cache()
