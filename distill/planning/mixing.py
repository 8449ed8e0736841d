"""Draws that are the same on every machine: integer mixing, keyed by names, and permutations of large ranges.

Python's `hash` of a text differs between processes and `random` between versions; nothing here uses either.
"""

from __future__ import annotations

from distill.io import digest

__all__ = ["key_of", "mix", "permuted"]

_MASK = (1 << 64) - 1
_ROUNDS = 4


def key_of(*parts: str | int) -> int:
    """64 bits that stand for `parts`."""
    return int(digest(list(parts), size=8), 16)


def mix(value: int) -> int:
    """Scatter 64 bits: the finaliser of SplitMix64 (Steele, Lea, Flood 2014)."""
    value = (value + 0x9E3779B97F4A7C15) & _MASK
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & _MASK
    return value ^ (value >> 31)


def permuted(position: int, size: int, key: int) -> int:
    """Where `position` goes in the permutation of `range(size)` that `key` names; O(1) memory for any size.

    A Feistel network over the next power of two, walked until it falls inside the range (Black, Rogaway 2002):
    a permutation whatever the round function is.
    """
    if size <= 1:
        return 0
    bits = (size - 1).bit_length()
    low_bits = bits // 2
    high_bits = bits - low_bits
    low_mask, high_mask = (1 << low_bits) - 1, (1 << high_bits) - 1
    value = position
    while True:
        high, low = value >> low_bits, value & low_mask
        for turn in range(_ROUNDS):
            # Odd turns change the low part by the high one, even turns the other way round.
            if turn & 1:
                low ^= _wide(high, key + turn, low_bits) & low_mask
            else:
                high ^= _wide(low, key + turn, high_bits) & high_mask
        value = high << low_bits | low
        if value < size:
            return value


def _wide(value: int, key: int, bits: int) -> int:
    """At least `bits` mixed bits of a value of any size."""
    folded = key
    while True:
        folded = mix(folded ^ (value & _MASK))
        value >>= 64
        if not value:
            break
    result = folded
    for word in range(1, (bits + 63) // 64):
        result = result << 64 | mix(folded + word)
    return result
