"""The arrays that the near-duplicate kernels work on, and how they are made and grown."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "AHEAD", "I64", "U8", "U32", "U64", "Index", "Out", "Rows", "Rules", "Scratch", "empty_index", "grow", "scratch",
]  # fmt: skip

U8, U32, U64, I64 = NDArray[np.uint8], NDArray[np.uint32], NDArray[np.uint64], NDArray[np.int64]

AHEAD = 8
"""Rows whose tags are made before the first of them is looked up, so that the memory has answered by then."""


class Rows(NamedTuple):
    """Folded texts to judge, in order: UTF-8, words separated by single spaces."""

    data: U8
    begins: I64
    ends: I64
    words: I64


class Rules(NamedTuple):
    """What makes two texts near-duplicates, and how candidates are found."""

    a: U32
    """Factors of the permutations, shape (bands * rows of a band,)."""
    b: U32
    """Their summands."""
    bands: int
    sizes: I64
    """Characters and words in a shingle, shape (2,)."""
    unit: int
    """CHAR, WORD, or -1: words for texts over `long` words."""
    long: int
    threshold: float
    short: int
    """Two texts of fewer words than this need `short_threshold`."""
    short_threshold: float
    agree: int
    """Bits of 128 that a candidate in the same unit must share to be read."""
    cap: int
    """Kept texts that can be found through one tag."""
    common: U64
    """Hash table of shingles that do not count, a power of two; 0 is free. Empty: all count."""


class Index(NamedTuple):
    """Kept texts. All arrays have room for what the next call may add."""

    slots: U64
    """Open addressing, in the order of the tags: tag << 32 | number of the text + 1, or, from 1 << 31 on, the group of
    texts that share the tag; 0 is free. Most tags have one text, and the few that very many share would fill the
    neighbourhood of their slot, where others are looked for."""
    groups: U32
    """Numbers + 1 of texts that share a tag, in groups of four or of the cap; 0 is free."""
    data: U8
    """Folded texts, one behind the other."""
    ends: I64
    """ends[i] : ends[i + 1] is text i."""
    bits: U64
    """One bit of each of the first 127 minima, and last the unit in which the text was judged; shape (texts, 2). In one
    place, because most candidates are looked at here and never again: a look at the memory each."""
    counts: I64
    """Texts, slots taken, and how far `groups` is used."""


class Scratch(NamedTuple):
    """Working memory, reused from call to call. Positions: as many as the longest text has bytes; tables: a power of
    two of at least twice that."""

    places: I64
    """First byte of each character or word of the row."""
    points: U64
    hashes: U64
    values: U32
    other_places: I64
    """The same of the candidate."""
    other: U64
    other_values: U32
    own_keys: U64
    own_sets: I64
    """Number of the row's set or, for a shingle that they share, of a candidate's, which are higher: a slot with a
    lower number is free."""
    other_keys: U64
    other_sets: I64
    counter: I64
    """Number of the last set, shape (1,)."""
    signature: U32
    tags: U64
    """Of some rows, shape (rows, bands)."""
    bits: U64
    """Of the same rows, shape (rows, 2)."""
    spots: I64
    """Where each tag stands in the table of slots; ~(the free slot it would get) where it does not."""
    hits: I64
    """Kept texts behind all tags of a row."""
    candidates: I64


class Out(NamedTuple):
    """What is decided, one entry a row."""

    match: I64
    """Number of the kept text that the row repeats; -1 if none."""
    similarity: NDArray[np.float64]
    run: I64
    """First and end byte of the longest run that both share, shape (rows, 2)."""
    number: I64
    """The number under which the row was kept; -1 if it was not."""


def empty_index() -> Index:
    """No texts yet."""
    return Index(
        slots=np.zeros(1 << 12, np.uint64),
        data=np.empty(1 << 12, np.uint8),
        ends=np.zeros(1 << 8, np.int64),
        bits=np.empty((1 << 8, 2), np.uint64),
        groups=np.zeros(1 << 8, np.uint32),
        counts=np.zeros(3, np.int64),
    )


def scratch(longest: int, rules: Rules) -> Scratch:
    """Working memory for texts of at most `longest` bytes."""
    positions = max(1 << (longest + 64).bit_length(), 1 << 10)
    table = 2 * positions
    return Scratch(
        places=np.empty(positions + 1, np.int64),
        points=np.empty(positions, np.uint64),
        hashes=np.empty(positions, np.uint64),
        values=np.empty(positions, np.uint32),
        other_places=np.empty(positions + 1, np.int64),
        other=np.empty(positions, np.uint64),
        other_values=np.empty(positions, np.uint32),
        own_keys=np.empty(table, np.uint64),
        own_sets=np.zeros(table, np.int64),
        other_keys=np.empty(table, np.uint64),
        other_sets=np.zeros(table, np.int64),
        counter=np.zeros(1, np.int64),
        signature=np.empty(len(rules.a), np.uint32),
        tags=np.empty((AHEAD, rules.bands), np.uint64),
        bits=np.empty((AHEAD, 2), np.uint64),
        spots=np.empty(rules.bands, np.int64),
        hits=np.empty(rules.bands * max(rules.cap, 1) + 1, np.int64),
        candidates=np.empty(rules.bands * max(rules.cap, 1) + 1, np.int64),
    )


def grow(array: NDArray[Any], needed: int) -> None:
    """Give the array room for `needed` rows, and a sixty-fourth more where it has to grow.

    It grows in place, which moves memory pages instead of copying them. The caller holds the only reference.
    """
    if needed > len(array):
        array.resize((needed + needed // 64, *array.shape[1:]), refcheck=False)
