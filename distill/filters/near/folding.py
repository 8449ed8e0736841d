"""Folding whole batches: what `fold` gives, as one array that kernels read."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from distill.filters.near.arrays import I64, U8, Rows
from distill.filters.near.jit import inline, kernel
from distill.filters.normalise import fold

__all__ = ["fold_ascii", "fold_one", "folded"]

_SPACE = 32


def folded(texts: Sequence[str]) -> Rows:
    """`fold` of many texts, as UTF-8 in one array."""
    count, data, offsets = len(texts), *_joined(texts)
    rows = Rows(np.empty(len(data), np.uint8), *(np.empty(count, np.int64) for _ in range(3)))
    used = fold_ascii(data, offsets, *rows)
    others = (rows.words < 0).nonzero()[0]
    if not len(others):
        return rows
    parts = [fold(texts[row]) for row in others.tolist()]
    encoded = [part.encode("utf-8") for part in parts]
    ends = used + np.cumsum([len(each) for each in encoded])
    rows.ends[others] = ends
    rows.begins[others] = np.concatenate(([used], ends[:-1]))
    rows.words[others] = [part.count(" ") + 1 if part else 0 for part in parts]
    return rows._replace(data=np.concatenate((rows.data[:used], np.frombuffer(b"".join(encoded), np.uint8))))


def fold_one(text: str) -> bytes:
    """`fold` of one text, as UTF-8."""
    if text.isascii():
        data = text.encode("ascii").translate(_FOLDED)
        if b"  " not in data and not data.startswith(b" ") and not data.endswith(b" "):
            return data
    return fold(text).encode("utf-8")


@kernel
def fold_ascii(data: U8, offsets: I64, out: U8, begins: I64, ends: I64, words: I64) -> int:
    """Lower case and single spaces, as `fold` gives. A row that is not ASCII is left out, with words -1.

    Returns:
        bytes written.
    """
    at = 0
    for row in range(len(offsets) - 1):
        first, size = offsets[row], offsets[row + 1] - offsets[row]
        source, target = data[first : first + size], out[at : at + size]
        seen, spaces, doubled = np.uint8(0), 0, 0
        for i in range(size):
            byte = source[i]
            seen |= byte
            space = (byte == 32) | (np.uint8(byte - 9) < 5) | (np.uint8(byte - 28) < 4)
            target[i] = np.uint8(32) if space else np.uint8(byte + (np.uint8(32) if np.uint8(byte - 65) < 26 else 0))
            spaces += np.uint8(space)
        if seen >= 128:
            begins[row], ends[row], words[row] = at, at, -1
            continue
        for i in range(size - 1):
            doubled += np.uint8((target[i] == _SPACE) & (target[i + 1] == _SPACE))
        begins[row] = at
        if size and (doubled or target[0] == _SPACE or target[size - 1] == _SPACE):
            size, spaces = _single_spaces(target)
        at += size
        ends[row], words[row] = at, spaces + 1 if size else 0
    return at


@inline
def _single_spaces(text: U8) -> tuple[int, int]:
    """Take spaces out that stand first, last or behind another; new size, and how many are left."""
    at, spaces, gap = 0, 0, False
    for place in range(len(text)):
        if text[place] == _SPACE:
            gap = at > 0
            continue
        if gap:
            text[at] = _SPACE
            at, spaces, gap = at + 1, spaces + 1, False
        text[at] = text[place]
        at += 1
    return at, spaces


def _joined(texts: Sequence[str]) -> tuple[U8, I64]:
    """All texts in UTF-8, and where each begins; arrays that cannot be written, for kernels are compiled for one kind.

    (Arrow would do the same, and import pandas first.)
    """
    joined = "".join(texts)
    parts = texts if joined.isascii() else [text.encode("utf-8") for text in texts]
    data = np.frombuffer(joined.encode("utf-8"), np.uint8) if joined else _NOTHING
    offsets = np.zeros(len(texts) + 1, np.int64)
    np.cumsum(np.fromiter(map(len, parts), np.int64, len(texts)), out=offsets[1:])
    offsets.flags.writeable = False
    return data, offsets


_FOLDED = bytes(ord(" ") if chr(byte).isspace() else ord(chr(byte).lower()) for byte in range(128)) + bytes(128)
_NOTHING = np.empty(0, np.uint8)
_NOTHING.flags.writeable = False
