"""How much memory was needed, and how much there is."""

from __future__ import annotations

import os
import resource
import sys

__all__ = ["available_memory", "peak_memory"]


def peak_memory() -> int:
    """Most bytes this process has held so far: on the GPU where one was used, else resident in main memory."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available() and torch.cuda.is_initialized():
        return int(torch.cuda.max_memory_allocated())
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def available_memory() -> int:
    """Bytes of main memory that are free or can be freed, within the container's limit where one is set."""
    try:
        with open("/proc/meminfo", encoding="ascii") as file:
            fields = dict(line.split(":", 1) for line in file)
        free = int(fields["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        free = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
    try:
        with open("/sys/fs/cgroup/memory.max", encoding="ascii") as limit:
            most = limit.read().strip()
        with open("/sys/fs/cgroup/memory.current", encoding="ascii") as used:
            return min(free, int(most) - int(used.read())) if most != "max" else free
    except (OSError, ValueError):
        return free
