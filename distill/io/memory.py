"""How much main memory this process has needed, how much there is, and giving back what is free."""

from __future__ import annotations

import ctypes
import gc
import mmap
import os
import resource
import sys

__all__ = ["available_memory", "hand_back", "map_large_blocks", "page_out", "peak_memory", "resident_memory"]

_MMAP_THRESHOLD = -3
"""glibc's number of `M_MMAP_THRESHOLD`."""

_MADV_PAGEOUT = 21
"""Linux's, from 5.4 on; an older kernel refuses, and holds more."""


def peak_memory() -> int:
    """Most bytes of main memory this process has held so far.

    Linux hands `ru_maxrss` down to a new program from the one that started it, so the kernel's own mark of this
    address space (VmHWM) is read there.
    """
    marked = _kilobytes("/proc/self/status", "VmHWM")
    if marked is not None:
        return marked * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def resident_memory() -> int:
    """Bytes of main memory this process holds now; where the kernel does not tell, the most it has held."""
    held = _kilobytes("/proc/self/status", "VmRSS")
    return held * 1024 if held is not None else peak_memory()


def available_memory() -> int:
    """Bytes of main memory that are free or can be freed, within the container's limit where one is set."""
    available = _kilobytes("/proc/meminfo", "MemAvailable")
    free = available * 1024 if available is not None else os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
    try:
        with open("/sys/fs/cgroup/memory.max", encoding="ascii") as limit:
            most = limit.read().strip()
        with open("/sys/fs/cgroup/memory.current", encoding="ascii") as used:
            return min(free, int(most) - int(used.read())) if most != "max" else free
    except (OSError, ValueError):
        return free


def hand_back() -> None:
    """Give freed memory back to the system: between two models, where the allocator would keep gigabytes of the first.
    Nothing where the C library has no way to (other than glibc)."""
    gc.collect()
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except (OSError, AttributeError):
        return


def page_out(address: int, size: int) -> None:
    """Take the whole pages of `size` bytes at `address` out of main memory: what has been read of a mapped file, and is
    not read again while the mapping stays. Nothing is lost: a page that is read all the same comes back from its file.
    """
    first = -(-address // mmap.PAGESIZE) * mmap.PAGESIZE
    length = (address + size) // mmap.PAGESIZE * mmap.PAGESIZE - first
    if length <= 0 or not sys.platform.startswith("linux"):
        return
    ctypes.CDLL(None).madvise(ctypes.c_void_p(first), ctypes.c_size_t(length), _MADV_PAGEOUT)


def map_large_blocks(size: int = 4 << 20) -> None:
    """From now on a block of at least `size` bytes goes back to the system when it is freed.

    glibc raises that size to the largest block that was freed, up to 32 MB, and keeps smaller ones in one heap: a
    training step, which frees tensors of many sizes between others that stay, then holds up to twice what is alive in
    it. With a fixed size what is held is what is alive. Nothing where the C library has no such setting.
    """
    try:
        ctypes.CDLL(None).mallopt(_MMAP_THRESHOLD, size)
    except (OSError, AttributeError):
        return


def _kilobytes(file: str, field: str) -> int | None:
    try:
        with open(file, encoding="ascii", errors="replace") as lines:
            return next((int(line.split()[1]) for line in lines if line.startswith(f"{field}:")), None)
    except (OSError, ValueError, IndexError):
        return None
