"""Which keys are surely not in the store: one bit each in 8 MB, so that a first run asks the database nothing.

A set bit may belong to another key (1.5 % of lookups with a million answers), which costs one SELECT. Memory stays the
same however many answers there are.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

__all__ = ["KnownKeys"]

_SHIFT = 6  # the first 32 bits of a key, less these, number the bits


class KnownKeys:
    """A one-hash Bloom filter over hexadecimal keys (uniform by themselves: they are digests)."""

    __slots__ = ("_bits",)

    def __init__(self) -> None:
        self._bits = bytearray(1 << (32 - _SHIFT - 3))

    def add(self, key: str) -> None:
        """Remember a key."""
        index = int(key[:8], 16) >> _SHIFT
        self._bits[index >> 3] |= 1 << (index & 7)

    def add_all(self, keys: Iterable[bytes]) -> None:
        """Remember many keys, as their 16 bytes."""
        joined = b"".join(key[:4] for key in keys)
        index = np.frombuffer(joined, dtype=">u4").astype(np.uint32) >> _SHIFT
        bits = np.frombuffer(self._bits, dtype=np.uint8)
        np.bitwise_or.at(bits, index >> 3, np.left_shift(np.uint8(1), (index & 7).astype(np.uint8)))

    def maybe(self, key: str) -> bool:
        """False: the key was never added."""
        index = int(key[:8], 16) >> _SHIFT
        return self._bits[index >> 3] >> (index & 7) & 1 == 1
