"""The pieces of a text that an eval item could fill: the whole, its lines, and windows of a long text.

A paraphrase inside a long prompt, or a short row that retells a part of a long item, shares little with the whole text
and much with one piece of it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from distill.filters.decontamination.words import Words

__all__ = ["Views", "pieces", "whole"]

_LINE = 8  # words of a line at least, and a third of the width: lines of code are short, and many functions share some


@dataclass(frozen=True, slots=True)
class Views:
    """m pieces of n texts, those of one text together and in the order of the texts; every text has its whole first."""

    owner: NDArray[np.int64]
    """Shape (m,): the text of each piece."""
    first: NDArray[np.int64]
    """Shape (m,): its first word, in the array of all words."""
    count: NDArray[np.int64]
    """Shape (m,): its words."""

    @property
    def begins(self) -> NDArray[np.int64]:
        """Shape (n,): the first piece of each text."""
        return np.flatnonzero(np.concatenate(([True], self.owner[1:] != self.owner[:-1])))


def whole(words: Words) -> Views:
    """Every text as one piece."""
    return Views(np.arange(len(words.counts)), words.starts, words.counts)


def pieces(words: Words, width: int) -> Views:
    """Every text whole; its lines that are long enough to be one; and of a text of over two widths windows of 1.5
    widths, half a width apart: a run of `width` words stands whole inside one of them."""
    found = [whole(words), _lines(words, width), _windows(words, width)]
    owner = np.concatenate([views.owner for views in found])
    first = np.concatenate([views.first for views in found])
    count = np.concatenate([views.count for views in found])
    order = np.argsort(owner, kind="stable")
    return Views(owner[order], first[order], count[order])


def _lines(words: Words, width: int) -> Views:
    begin = np.flatnonzero(words.begins_line)
    owner = np.repeat(np.arange(len(words.counts)), words.counts)[begin]
    count = np.diff(np.append(begin, len(words.hashes)))
    wanted = (count >= max(_LINE, width // 3)) & (count < words.counts[owner])
    return Views(owner[wanted], begin[wanted], count[wanted])


def _windows(words: Words, width: int) -> Views:
    step, size = max(width // 2, 1), max(3 * width // 2, 1)
    long = np.flatnonzero(words.counts > 2 * width)
    extra = -(-(words.counts[long] - size) // step) + 1
    owner = np.repeat(long, extra)
    begin = (np.arange(len(owner)) - np.repeat(np.cumsum(extra) - extra, extra)) * step
    return Views(owner, words.starts[owner] + begin, np.minimum(size, words.counts[owner] - begin))
