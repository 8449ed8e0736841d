"""How alike two texts are to a sentence encoder: for paraphrases that share few words and no numbers.

The cosine of two embeddings. An encoder sees a text's first 256 tokens or so and the language it was trained on; words
changed at random throw it off (0.42 of texts with 20 % of the words replaced are found), so it comes after the word
stages, never in their place.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from distill.filters.decontamination.likeness import Likeness

__all__ = ["LEAK", "Embeds", "Late", "MeaningIndex"]

LEAK = 0.6
"""Mean cosine of leaks at least, for calibration."""

_TWIN = 0.85
_LOWEST, _HIGHEST, _USUAL = 0.7, 0.95, 0.85
_ENOUGH_ITEMS = 100
_CELLS = 1 << 22


class Embeds(Protocol):
    """An encoder."""

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Shape (n, d), rows of unit length."""
        ...


class Late:
    """An encoder that is loaded when the first text is embedded: a chain may be built only to be checked."""

    def __init__(self, load: Callable[[], Embeds]) -> None:
        self._load = load

    @cached_property
    def _encoder(self) -> Embeds:
        return self._load()

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Shape (n, d), rows of unit length."""
        return self._encoder.embed(texts)


class MeaningIndex:
    """Items to compare texts with; embedded when the first text comes."""

    def __init__(self, items: Sequence[str], encoder: Embeds) -> None:
        self._texts, self._encoder = list(items), encoder

    @cached_property
    def _items(self) -> NDArray[np.float32]:
        return self._encoder.embed(self._texts)

    @cached_property
    def threshold(self) -> float:
        """The cosine of a paraphrase where nothing was calibrated: 0.1 more than one in ten items reaches with another
        item, within bounds."""
        if len(self._texts) < _ENOUGH_ITEMS:
            return _USUAL
        some = np.linspace(0, len(self._items) - 1, min(len(self._items), 1024)).astype(np.int64)
        scores = self._items[some] @ self._items.T
        scores[np.arange(len(some)), some] = -1.0
        return float(np.clip(np.quantile(scores.max(1), 0.9) + 0.1, _LOWEST, _HIGHEST))

    def best(self, texts: Sequence[str], *, runners: bool = False) -> Likeness:
        """Compare texts with every item; empty texts score 0."""
        item, score = np.zeros(len(texts), np.int64), np.zeros(len(texts))
        following = np.full((len(texts) if runners else 0, 2), np.nan)
        there = np.array([row for row, text in enumerate(texts) if text.strip()], np.int64)
        vectors = self._encoder.embed([texts[int(row)] for row in there])
        block = max(1, _CELLS // max(len(self._texts), 1))
        for first in range(0, len(there), block):
            rows = there[first : first + block]
            scores = vectors[first : first + block] @ self._items.T
            item[rows], score[rows] = scores.argmax(1), np.maximum(scores.max(1), 0.0)
            for column in range(2 if runners else 0):
                nearest = self._items[scores.argmax(1)]
                scores[nearest @ self._items.T >= _TWIN] = -1.0
                best = scores.max(1)
                following[rows, column] = np.where(best > -1, best, np.nan)
        return Likeness(item, score, following)
