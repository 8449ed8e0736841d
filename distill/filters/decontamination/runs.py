"""Runs of words that one text has from another."""

from __future__ import annotations

import re
from collections.abc import Sequence

__all__ = ["Runs", "words_of"]

_WORD = re.compile(r"\w+(?:['’]\w+)*")


def words_of(text: str) -> list[str]:
    """The words of a text, in small letters, without punctuation."""
    return _WORD.findall(text.casefold())


class Runs:
    """The runs of `size` words of some texts."""

    def __init__(self, texts: Sequence[str], size: int) -> None:
        self.size = size
        self._runs = {run for text in texts for run in _runs(words_of(text), size)}

    def __bool__(self) -> bool:
        return bool(self._runs)

    def covered(self, words: Sequence[str]) -> list[tuple[int, int]]:
        """Where `words` stand in runs of the texts: begin and end, in order, not overlapping, as long as they go."""
        found: list[tuple[int, int]] = []
        for place, run in enumerate(_runs(words, self.size)):
            if run in self._runs:
                if found and place <= found[-1][1]:
                    found[-1] = found[-1][0], place + self.size
                else:
                    found.append((place, place + self.size))
        return found


def _runs(words: Sequence[str], size: int) -> zip[tuple[str, ...]]:
    return zip(*(words[start:] for start in range(size)), strict=False)
