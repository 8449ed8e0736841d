"""Overlap with a reference text: `rouge_l` over words, `chrf` over characters.

ROUGE-L (Lin 2004): the longest common subsequence of words, F1, mean over items; words are lower-cased letters and
digits, without stemming, as rouge-score counts them. chrF (Popović 2015, https://aclanthology.org/W15-3049): character
n-grams of order 1 to 6 without spaces, F2, counts summed over the whole set before they are divided, as sacreBLEU
does. Both lie between 0 and 1 here.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from distill.evaluate.holdout import Item
from distill.evaluate.metrics.base import Counted, Floats, Metric, shares, with_answers

__all__ = ["ChrF", "RougeL"]

_ORDER = 6
_BETA = 2


@dataclass(frozen=True)
class RougeL(Metric):
    """F1 of the longest common subsequence of words."""

    def count(self, items: Sequence[Item], predictions: Sequence[str]) -> Counted:
        scores = [_rouge_l(_words(i.answer), _words(text)) for i, text in zip(items, predictions, strict=True)]
        return shares(scores, with_answers(items))

    def definition(self) -> str:
        return "ROUGE-L: F1 of the longest common subsequence of words with the answer, mean over items"


@dataclass(frozen=True)
class ChrF(Metric):
    """Character n-gram F2 of the whole set."""

    def count(self, items: Sequence[Item], predictions: Sequence[str]) -> Counted:
        sums = np.zeros((len(items), 3 * _ORDER))
        for row, (item, text) in enumerate(zip(items, predictions, strict=True)):
            if item.has_answer:
                sums[row] = _matches(item.answer, text)
        return Counted(_chrf(sums), sums, _chrf, weight=with_answers(items))

    def definition(self) -> str:
        return "chrF2 with the answer: character n-grams of order 1 to 6, counted over all items together (0 to 1)"


def _words(text: str) -> list[str]:
    return re.findall(r"[^\W_]+", text.lower())


def _rouge_l(wanted: list[str], said: list[str]) -> float:
    common = _common(wanted, said)
    return 2 * common / (len(wanted) + len(said)) if common else 0.0


def _common(one: list[str], other: list[str]) -> int:
    """Length of the longest common subsequence: one bit a word of `one` (Hyyrö 2004), a step a word of `other`."""
    places: dict[str, int] = {}
    for position, word in enumerate(one):
        places[word] = places.get(word, 0) | 1 << position
    every = (1 << len(one)) - 1
    left = every
    for word in other:
        met = left & places.get(word, 0)
        left = ((left + met) | (left - met)) & every
    return len(one) - left.bit_count()


def _matches(reference: str, hypothesis: str) -> list[float]:
    """Per order: n-grams of the hypothesis, of the reference, of both."""
    wanted, said = "".join(reference.split()), "".join(hypothesis.split())
    counts: list[float] = []
    for order in range(1, _ORDER + 1):
        ours, theirs = _grams(said, order), _grams(wanted, order)
        # An order that the reference is too short for says nothing of the hypothesis.
        counts += [ours.total() if theirs else 0, theirs.total(), (ours & theirs).total()]
    return counts


def _grams(text: str, order: int) -> Counter[str]:
    return Counter(text[k : k + order] for k in range(len(text) - order + 1))


def _chrf(sums: Floats) -> Floats:
    """F of mean precision and mean recall over the orders that both texts are long enough for."""
    said, wanted, both = (sums[:, k::3] for k in range(3))
    there = (said > 0) & (wanted > 0)
    orders = np.maximum(there.sum(1), 1)
    precision = np.divide(both, said, out=np.zeros_like(both), where=there).sum(1) / orders
    recall = np.divide(both, wanted, out=np.zeros_like(both), where=there).sum(1) / orders
    below = _BETA**2 * precision + recall
    return np.divide((1 + _BETA**2) * precision * recall, below, out=np.zeros_like(below), where=below > 0)
