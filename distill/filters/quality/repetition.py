"""Rows that repeat themselves: n-grams, lines, and loops a model fell into.

The measures are those that Gopher's data was cleaned by (Rae et al. 2021, arXiv:2112.11446, table A1), over words;
a text of a script without spaces, or of letters alone, is measured over its characters. All rows of a batch are
measured at once, in arrays.
"""

# Arrow's arrays are generic over types that only run time knows.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportUnknownParameterType=false, reportMissingTypeArgument=false
from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute
from numpy.typing import NDArray

from distill.filters.base import Verdicts
from distill.filters.normalise import excerpt
from distill.filters.text import texts
from distill.recipe import RepetitionStep

__all__ = ["RepetitionFilter"]

pc: Any = pyarrow.compute
_PERIODS = (1, 2, 3, 4)  # words of a loop
_FEW_LINES = 5  # lines under which repeating one says nothing
_LONG_WORD = 20  # letters of a word that is none
_UNSPACED = re.compile(r"[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]")
"""Thai, Lao, Burmese, Khmer, Japanese, Chinese."""
_PRIME = np.uint64(0x9E3779B97F4A7C15)


@dataclass(frozen=True, slots=True)
class _Words:
    """The words of n texts, flat."""

    text: Any
    """Arrow strings."""
    number: NDArray[np.int64]
    """Equal for equal words."""
    counts: NDArray[np.int64]
    owner: NDArray[np.int64]
    """The text a word stands in."""
    letters: NDArray[np.bool_]
    """Whether it holds a letter."""


class RepetitionFilter:
    """Drops a row whose words stand in repeated n-grams (`repeated_ngrams`), whose lines repeat (`repeated_lines`), or
    that goes round in a loop (`loop`). Evidence is what repeats; the score is the share of words in repeated
    n-grams."""

    def __init__(self, step: RepetitionStep, name: str = "repetition") -> None:
        self.name = name
        self._step = step

    def judge(self, rows: pa.Table) -> Verdicts:
        step, verdicts = self._step, Verdicts.kept(rows.num_rows)
        contents = texts(rows, step.fields)
        words = _split(contents)
        shares, firsts = _repeated(words, step.ngram)
        verdicts.score[:] = np.round(shares, 4)
        for row, (start, length, times) in _loops(words, step.max_run).items():
            shown = " ".join(words.text.slice(start, length).to_pylist())
            verdicts.drop(row, "loop", f"“{excerpt(shown, 80)}” {times} times in a row", score=float(shares[row]))
        for row in np.flatnonzero((shares > step.max_ngrams) & (words.counts >= step.min_words) & verdicts.keep):
            shown = " ".join(words.text.slice(int(firsts[row]), step.ngram).to_pylist())
            evidence = f"{shares[row]:.0%} of the words repeat, such as “{excerpt(shown, 120)}”"
            verdicts.drop(int(row), "repeated_ngrams", evidence, score=round(float(shares[row]), 4))
        for row, content in enumerate(contents):
            if verdicts.keep[row] and content.count("\n") >= _FEW_LINES - 1:
                self._check_lines(verdicts, row, content)
        return verdicts

    def _check_lines(self, verdicts: Verdicts, row: int, content: str) -> None:
        lines = [line for line in map(str.strip, content.split("\n")) if any(map(str.isalpha, line))]
        counts = Counter(lines)
        share = (len(lines) - len(counts)) / len(lines) if lines else 0.0
        if len(lines) >= _FEW_LINES and share > self._step.max_lines:
            line, times = counts.most_common(1)[0]
            evidence = f"{share:.0%} of the lines repeat, such as “{excerpt(line, 120)}” {times} times"
            verdicts.drop(row, "repeated_lines", evidence, score=share)


def _split(contents: list[str]) -> _Words:
    spaced = [" ".join(content) if _has_no_spaces(content) else content for content in contents]
    column = pc.utf8_split_whitespace(pc.utf8_lower(pa.array(spaced, pa.large_string())))
    owner = np.asarray(pc.list_parent_indices(column)).astype(np.int64)
    flat = column.flatten()
    wanted = np.asarray(pc.match_substring_regex(flat, r"[\p{L}\p{N}]"))  # rules and bullets are no words
    flat, owner = flat.filter(pa.array(wanted)), owner[wanted]
    number = np.asarray(flat.dictionary_encode().indices).astype(np.int64)
    letters = np.asarray(pc.match_substring_regex(flat, r"\p{L}"))
    return _Words(flat, number, np.bincount(owner, minlength=len(contents)), owner, letters)


def _has_no_spaces(content: str) -> bool:
    """Whether the words of a text cannot be seen. Long words do not say so: addresses, JSON and code have some."""
    if content.isascii():
        return len(content) > _LONG_WORD and content.isalpha()
    letters = sum(map(len, content.split()))
    return 2 * len(_UNSPACED.findall(content)) > letters or (letters > _LONG_WORD and content.isalpha())


def _repeated(words: _Words, size: int) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """By text: the share of words in n-grams that came before in it, and where the first of those begins."""
    total, n = len(words.counts), len(words.number)
    firsts = np.zeros(total, np.int64)
    places = np.flatnonzero(words.owner[: n - size + 1] == words.owner[size - 1 :]) if n >= size else np.zeros(0, int)
    if not len(places):
        return np.zeros(total), firsts
    key = words.owner[places].astype(np.uint64) * _PRIME
    for step in range(size):
        key = (key ^ (key >> np.uint64(29))) * _PRIME + words.number[places + step].astype(np.uint64)
    again = np.ones(len(places), bool)
    again[np.unique(key, return_index=True)[1]] = False
    starts = places[again]
    edge = np.zeros(n + 1, np.int64)
    np.add.at(edge, starts, 1)
    np.add.at(edge, starts + size, -1)
    covered = np.cumsum(edge[:-1]) > 0
    firsts[words.owner[starts[::-1]]] = starts[::-1]
    return np.bincount(words.owner, covered, total) / np.maximum(words.counts, 1), firsts


def _loops(words: _Words, least: int) -> dict[int, tuple[int, int, int]]:
    """Texts in which one to four words follow themselves `least` times or more: where, how many words, how often."""
    found: dict[int, tuple[int, int, int]] = {}
    for period in _PERIODS:
        same = np.zeros(len(words.number) + 1, bool)
        if len(words.number) > period:
            same[period:-1] = (
                (words.number[period:] == words.number[:-period])
                & (words.owner[period:] == words.owner[:-period])
                & words.letters[period:]
            )
        turns = np.flatnonzero(np.diff(same, prepend=False))
        for begin, end in zip(turns[::2].tolist(), turns[1::2].tolist(), strict=True):
            times = (end - begin) // period + 1
            if times >= least:
                found.setdefault(int(words.owner[begin]), (begin - period, period, times))
    return found
