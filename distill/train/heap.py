"""What the C library's allocator holds for a sequence of tensors: more than is alive, for the holes between them.

A step frees tensors of many sizes between others that stay (gradients, what is kept for the backward pass), and what
fits into no hole makes the heap grow: up to twice what is alive, seen on a CPU. So the allocator is played through:
glibc's malloc, as far as it decides about memory. Requests take the smallest free chunk that is large enough, else the
heap's end, which moves; large ones that no chunk can take are mapped apart and given back at once; neighbouring free
chunks are one; the heap's free end is given back where it is large. What is large is learned: the largest mapped chunk
that was freed, up to 32 MB (https://sourceware.org/glibc/wiki/MallocInternals).

An aligned request asks for 96 bytes more than it keeps. Small things (the nodes of a graph) settle in what is left
over, and then the chunk, once it is free, is too small for a tensor of its own size. Without the cache that hands them
out (`GLIBC_TUNABLES=glibc.malloc.tcache_count=0`) the heap of a checkpointed step grew by 0.55 of that.
"""

from __future__ import annotations

from bisect import bisect_left, insort

__all__ = ["Heap"]

_PAGE = 4096
_PAD = 128 << 10
"""What the heap grows by beyond what is needed, and keeps when it gives back."""
_LARGEST = 32 << 20
_SPARE = 96
"""What an aligned chunk is asked for beyond its size (torch's tensors start at multiples of 64)."""


class Heap:
    """A heap, empty at first."""

    def __init__(self) -> None:
        self.held = self.peak = 0
        self._end = self._used = 0
        self._mapped = _PAD
        """Requests from this size on are mapped apart."""
        self._free: dict[int, int] = {}
        """Size by first byte."""
        self._ends: dict[int, int] = {}
        """First byte by end."""
        self._sizes: list[tuple[int, int]] = []
        """(size, first byte), sorted."""
        self._dust: list[int] = []
        self._taken: dict[int, tuple[int | None, int]] = {}
        """(first byte, size) by key; None: mapped."""

    def take(self, key: int, size: int, *, dust: bool = False) -> None:
        """Allocate `size` bytes under a key of the caller's.

        Args:
            dust: what is left over of aligning them goes to small things that stay, until `settle`.
        """
        size = (size + 8 + 15) // 16 * 16 + _SPARE
        place = bisect_left(self._sizes, (size, -1))
        if place < len(self._sizes):
            whole, start = self._sizes[place]
            self._claim(start)
            if whole - size >= 32:
                self._release(start + size, whole - size)
            else:
                size = whole
        elif self._end - self._used < size and size >= self._mapped:
            start, size = None, -(-size // _PAGE) * _PAGE
            self._hold(size)
        else:
            if self._end - self._used < size:
                grown = -(-(self._used + size + _PAD) // _PAGE) * _PAGE
                self._hold(grown - self._end)
                self._end = grown
            start = self._used
            self._used += size
        if start is not None and dust:
            size -= _SPARE
            self._dust.append(start + size)
        self._taken[key] = (start, size)

    def settle(self) -> None:
        """The small things are gone."""
        for start in self._dust:
            self._back(start, _SPARE)
        self._dust.clear()

    def give(self, key: int) -> None:
        """Free what was allocated under `key`."""
        start, size = self._taken.pop(key)
        if start is None:
            self._hold(-size)
            if size <= _LARGEST:
                self._mapped = max(self._mapped, size)
            return
        self._back(start, size)

    def _back(self, start: int, size: int) -> None:
        if start + size in self._free:
            size += self._claim(start + size)
        if start in self._ends:
            before = self._ends[start]
            size += self._claim(before)
            start = before
        if start + size < self._used:
            self._release(start, size)
            return
        self._used = start
        if self._end - start > 2 * self._mapped:
            kept = -(-(start + _PAD) // _PAGE) * _PAGE
            self._hold(kept - self._end)
            self._end = kept

    def _hold(self, more: int) -> None:
        self.held += more
        self.peak = max(self.peak, self.held)

    def _claim(self, start: int) -> int:
        size = self._free.pop(start)
        del self._ends[start + size]
        del self._sizes[bisect_left(self._sizes, (size, start))]
        return size

    def _release(self, start: int, size: int) -> None:
        self._free[start] = size
        self._ends[start + size] = start
        insort(self._sizes, (size, start))
