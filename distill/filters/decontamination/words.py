"""Words and numbers of a text, so that two tellings of one thing look alike.

`Nine eggs, costing $1,200` and `9 egg cost 1200` become the same words: case, a plural or a verb's ending, number words
and thousands separators go. A number is kept twice, as a word and in the text's set of numbers, because the numbers
of a problem survive a paraphrase that leaves few words standing. Number words and endings are English; other languages
are compared by the words as they stand, and scripts without spaces by their characters.

Words are 64-bit hashes. The tables that hold them are emptied when full, so memory does not grow with the data.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
import xxhash
from numpy.typing import NDArray

__all__ = ["NUMBER", "Lexicon", "Words", "tokens"]

U64 = NDArray[np.uint64]

NUMBER = 1
"""What stands for every number where numbers are masked."""

# Scripts without spaces give one word a character.
_TOKEN = re.compile(
    r"\n|[\u0e00-\u0e7f\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff]"
    r"|\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d+(?:\.\d+)?|[^\W\d_]+(?:['’][^\W\d_]+)*"
)
_NUMBERS: dict[str, float] = {
    "zero": 0, "one": 1, "two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8, "nine": 9,
    "ten": 10, "eleven": 11, "twelve": 12, "thirteen": 13, "fourteen": 14, "fifteen": 15, "sixteen": 16,
    "seventeen": 17, "eighteen": 18, "nineteen": 19, "twenty": 20, "thirty": 30, "forty": 40, "fifty": 50,
    "sixty": 60, "seventy": 70, "eighty": 80, "ninety": 90, "hundred": 100, "thousand": 1000, "million": 1e6,
    "half": 0.5, "dozen": 12, "once": 1, "twice": 2, "double": 2, "triple": 3,
}  # fmt: skip
_ENDINGS = ("ing", "ed", "es", "ly", "s", "e")
_BREAK = np.uint64(0)
_ROOM = 1 << 19


@dataclass(frozen=True, slots=True)
class Words:
    """Words of n texts in one array; those of text i stand at `starts[i] : starts[i] + counts[i]`."""

    hashes: U64
    numbers: NDArray[np.float64]
    """The value of a word that is a number, else NaN."""
    starts: NDArray[np.int64]
    counts: NDArray[np.int64]
    begins_line: NDArray[np.bool_]
    """Whether a word is the first of its line."""

    def take(self, texts: NDArray[np.int64]) -> Words:
        """The words of some of the texts."""
        counts = self.counts[texts]
        starts = np.cumsum(counts) - counts
        place = np.arange(int(counts.sum())) + np.repeat(self.starts[texts] - starts, counts)
        return Words(self.hashes[place], self.numbers[place], starts, counts, self.begins_line[place])

    def numbers_of(self, text: int) -> list[float]:
        """The numbers of one text, in order."""
        values = self.numbers[self.starts[text] : self.starts[text] + self.counts[text]]
        return values[~np.isnan(values)].tolist()

    def masked(self) -> U64:
        """The words with every number replaced by the same sign."""
        return np.where(np.isnan(self.numbers), self.hashes, np.uint64(NUMBER))


def tokens(text: str) -> list[str]:
    """Case-folded words, numbers and line breaks, in order."""
    if not text.isascii():
        text = unicodedata.normalize("NFKC", text)
    return _TOKEN.findall(text.casefold())


class Lexicon:
    """Hashes and values of words, remembered."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[int, float]] = {}

    def words(self, texts: Sequence[str]) -> Words:
        """The words of some texts."""
        if len(self._known) > _ROOM:
            self._known.clear()
        parts = [tokens(text) for text in texts]
        counts = np.fromiter(map(len, parts), np.int64, len(parts))
        total, known = int(counts.sum()), self._known
        found = [known.get(word) or self._learn(word) for word in chain.from_iterable(parts)]
        hashes = np.fromiter((entry[0] for entry in found), np.uint64, total)
        numbers = np.fromiter((entry[1] for entry in found), np.float64, total)
        breaks = hashes == _BREAK
        begins = np.concatenate(([False], breaks[:-1]))[:total]
        begins[(np.cumsum(counts) - counts)[counts > 0]] = True
        # A blank line hands its mark on to the next word.
        marks = np.cumsum(begins)[~breaks]
        counts = counts - np.bincount(np.repeat(np.arange(len(parts)), counts)[breaks], minlength=len(parts))
        begins = np.concatenate(([True], marks[1:] != marks[:-1]))[: len(marks)]
        return Words(hashes[~breaks], numbers[~breaks], np.cumsum(counts) - counts, counts, begins)

    def _learn(self, word: str) -> tuple[int, float]:
        if word == "\n":
            return self._known.setdefault(word, (int(_BREAK), np.nan))
        value = _value(word)
        stem = _stem(word) if np.isnan(value) else f"{value:g}"
        entry = self._known[word] = (xxhash.xxh3_64_intdigest(stem.encode("utf-8", "surrogatepass")), value)
        return entry


def _value(word: str) -> float:
    if not word[0].isdigit():
        return _NUMBERS.get(word, np.nan)
    try:
        return float(word.replace(",", ""))
    except ValueError:  # digits that are no decimal ones, such as ²
        return np.nan


def _stem(word: str) -> str:
    """Without the commonest English endings: crude, and the same for both texts."""
    word = word.removesuffix("'s").removesuffix("’s")
    if len(word) > 4 and word.endswith("ies"):
        return word[:-3] + "y"
    for ending in _ENDINGS:
        if word.endswith(ending) and len(word) - len(ending) >= 3 and not word.endswith("ss"):
            word = word[: -len(ending)]
            if len(word) > 3 and word[-1] == word[-2] and word[-1] not in "lsz":
                word = word[:-1]
            return word[:-1] if len(word) > 3 and word.endswith("e") else word
    return word
