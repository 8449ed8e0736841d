"""How alike two texts are when words were changed: TF-IDF cosine of words and word pairs, plus shared numbers.

    score = cosine + 0.4 * J * (1 - exp(-I / 2))

The cosine is over words and pairs of neighbours, with 1 + ln(tf) and smoothed inverse document frequencies of the eval
set itself, so that an index is the same whatever it is used on. J is the Jaccard overlap of the two texts' sets of
numbers, each number weighted by its rarity I in the set; I also stands for the weight that both share, so that one
common `2` in both texts counts for little. One number in common counts for no more than the words do: two short
messages that name the same amount are no paraphrases for it. Cosines of paraphrased math problems alone do not part
from those of other problems (recall 0.72 where one in a hundred others is hit); with the numbers they do (0.99).

Search is exact: every row is compared with every item, through a sparse product.
"""

# SciPy has no types.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import scipy.sparse
from numpy.typing import NDArray

from distill.filters.decontamination.views import Views, pieces, whole
from distill.filters.decontamination.words import NUMBER, Words

__all__ = ["Likeness", "LikenessIndex"]

sparse: Any = scipy.sparse

_NUMBERS = 0.4
_SATURATION = 2.0
_CHANCE = 2  # numbers in common from which it is no coincidence
_PAIR = np.uint64(0xD1342543DE82EF95)
_KEY = np.uint64(16)  # features are told apart by 48 bits, beside 16 bits of the text's place in its block
_BLOCK = 1 << 12
_CELLS = 1 << 22
_PRIOR = 25.0  # documents that every frequency is smoothed with: a set of three items says little of rarity
_UNSEEN = 0.5
_ITEM_WINDOW = 48
_TWIN = 0.6
_SOME = 1024
_MANY = 4096


@dataclass(frozen=True, slots=True)
class Likeness:
    """The best item of each of n texts, and the scores of the next ones."""

    item: NDArray[np.int64]
    score: NDArray[np.float64]
    """Shape (n,): 0 for a text without words."""
    runners: NDArray[np.float64]
    """Shape (n, 2): scores of the second and the third item, twins of those before them left out; NaN where there is
    none. Empty unless asked for."""


class LikenessIndex:
    """Items to compare texts with."""

    def __init__(self, items: Words) -> None:
        self._counts = items.counts
        self._width = int(np.clip(np.median(items.counts), 8, 256)) if len(items.counts) else 8
        total = len(items.counts)
        self._keys, frequency = np.unique(_features(items, whole(items))[0], return_counts=True)
        self._idf = _rarity(frequency, total)
        self._unseen = float(_rarity(np.zeros(1), total)[0])
        self._values, frequency = np.unique(_numbers(items, whole(items))[0], return_counts=True)
        self._value_weight = _rarity(frequency, total) - 1.0
        views = pieces(items, _ITEM_WINDOW)
        terms, numbers, self._number_mass = self._matrices(items, views)
        self._terms, self._numbers = terms.T.tocsr(), numbers.T.tocsr()
        self._begins = views.begins
        self._item_words = items

    def best(self, words: Words, *, runners: bool = False) -> Likeness:
        """Compare texts with every item."""
        n, items = len(words.counts), len(self._counts)
        item, score = np.zeros(n, np.int64), np.zeros(n)
        following = np.full((n if runners else 0, 2), np.nan)
        if not items:
            return Likeness(item, score, following)
        size = max(1, min(_BLOCK, _CELLS // max(self._terms.shape[1], 1)))
        views = pieces(words, self._width)
        open_text, so_far = -1, np.zeros(items, np.float32)
        for first in range(0, len(views.owner), size):
            part = slice(first, first + size)
            owners = views.owner[part]
            scores = self._scores(words, Views(owners, views.first[part], views.count[part]))
            texts = np.unique(owners)
            if texts[0] == open_text:
                scores[0] = np.maximum(scores[0], so_far)
            # The pieces of the last text may go on in the next block.
            if first + size < len(views.owner) and views.owner[first + size] == texts[-1]:
                open_text, so_far = int(texts[-1]), scores[-1]
                texts, scores = texts[:-1], scores[:-1]
            if len(texts):
                item[texts], score[texts] = scores.argmax(1), scores.max(1)
                if runners:
                    following[texts] = self._runners(scores)
        return Likeness(item, score, following)

    def own(self) -> NDArray[np.float64]:
        """The score of items with the item most like them: what clean texts of the very kind of the set reach. Of a
        large set some items, evenly spread, stand for all."""
        total = len(self._counts)
        chosen = np.unique(np.linspace(0, total - 1, min(total, _SOME)).astype(np.int64))
        words = self._item_words.take(chosen)
        scores = self._scores(words, whole(words))
        scores[np.arange(len(chosen)), chosen] = 0.0
        return scores.max(1).astype(np.float64)

    def masked(self, words: Words, rows: NDArray[np.int64], items: NDArray[np.int64]) -> NDArray[np.float64]:
        """Cosine of some pairs of a text and an item, with every number masked."""
        both = _Masked(words, self._item_words)
        return np.array([both.cosine(int(row), int(item)) for row, item in zip(rows, items, strict=True)], np.float64)

    def _scores(self, words: Words, views: Views) -> NDArray[np.float32]:
        terms, numbers, mass = self._matrices(words, views)
        score = (terms @ self._terms).toarray()
        shared = numbers @ self._numbers
        row, column, value = np.repeat(np.arange(len(mass)), np.diff(shared.indptr)), shared.indices, shared.data
        union = np.maximum(mass[row] + self._number_mass[column] - value, 1e-6)
        numbers_say = (_NUMBERS * value / union * (1 - np.exp(-value / _SATURATION))).astype(np.float32)
        one = (_ones(numbers) @ _ones(self._numbers)).data < _CHANCE
        score[row, column] += np.where(one, np.minimum(numbers_say, score[row, column]), numbers_say)
        if len(self._begins) < score.shape[1]:
            score = np.maximum.reduceat(score, self._begins, axis=1)
        begins = views.begins
        return np.maximum.reduceat(score, begins, axis=0) if len(begins) < len(score) else score

    def _matrices(self, words: Words, views: Views) -> tuple[Any, Any, NDArray[np.float64]]:
        """Unit rows of terms, rows of square roots of number weights, and the weight of all numbers of each piece."""
        count = len(views.owner)
        key, owner, weight = _features(words, views)
        place = np.minimum(np.searchsorted(self._keys, key), max(len(self._keys) - 1, 0))
        known = self._keys[place] == key if len(self._keys) else np.zeros(len(key), bool)
        weight = weight * np.where(known, self._idf[place] if len(self._keys) else 0.0, self._unseen)
        norm = np.sqrt(np.bincount(owner, weight * weight, count))
        weight = weight[known] / norm[owner[known]]
        terms = _csr(weight, place[known], owner[known], (count, len(self._keys)))
        values, value_owner = _numbers(words, views)
        place = np.minimum(np.searchsorted(self._values, values), max(len(self._values) - 1, 0))
        known = self._values[place] == values if len(self._values) else np.zeros(len(values), bool)
        rarity = np.where(known, self._value_weight[place] if len(self._values) else 0.0, self._unseen - 1.0)
        mass = np.bincount(value_owner, rarity, count).astype(np.float64)
        numbers = _csr(np.sqrt(rarity[known]), place[known], value_owner[known], (count, len(self._values)))
        return terms, numbers, mass

    @cached_property
    def _twins(self) -> NDArray[np.bool_] | None:
        """Which items are nearly the same; None for a set too large to ask."""
        if len(self._counts) > _MANY:
            return None
        twins = self._scores(self._item_words, whole(self._item_words)) >= _TWIN
        np.fill_diagonal(twins, True)
        return twins

    def _runners(self, scores: NDArray[np.float32]) -> NDArray[np.float64]:
        left, found = scores.copy(), np.full((len(scores), 2), np.nan)
        for column in range(2):
            first = left.argmax(1)
            left[np.arange(len(left)), first] = -1.0
            if self._twins is not None:
                left[self._twins[first]] = -1.0
            best = left.max(1)
            found[:, column] = np.where(best >= 0, best, np.nan)
        return found


class _Masked:
    """Plain cosines of words and pairs of single texts, numbers masked."""

    def __init__(self, texts: Words, items: Words) -> None:
        self._texts, self._items = (texts, texts.masked()), (items, items.masked())

    def cosine(self, row: int, item: int) -> float:
        left, right = self._counts(*self._texts, row), self._counts(*self._items, item)
        dot = sum(weight * right.get(key, 0.0) for key, weight in left.items())
        size = np.sqrt(sum(v * v for v in left.values()) * sum(v * v for v in right.values()))
        return float(dot / size) if size else 0.0

    @staticmethod
    def _counts(words: Words, masked: NDArray[np.uint64], row: int) -> dict[int, float]:
        run = masked[words.starts[row] : words.starts[row] + words.counts[row]]
        both = np.concatenate((run, run[:-1] * _PAIR + run[1:])) if len(run) else run
        keys, counts = np.unique(both, return_counts=True)
        weights = 1 + np.log(counts)
        weights[keys == np.uint64(NUMBER)] = 0.0
        return dict(zip(keys.tolist(), weights.tolist(), strict=True))


def _features(words: Words, views: Views) -> tuple[NDArray[np.uint64], NDArray[np.int64], NDArray[np.float64]]:
    """Distinct words and pairs of each piece: (key, piece, 1 + ln of how often), by piece."""
    place, owner = _positions(views)
    single = words.hashes[place]
    inner = owner[1:] == owner[:-1] if len(owner) else np.zeros(0, bool)
    pair = single[:-1][inner] * _PAIR + single[1:][inner]
    keys = np.concatenate((single, pair))
    owners = np.concatenate((owner, owner[:-1][inner]))
    parts: list[tuple[Any, Any, Any]] = []
    edges = range(0, len(views.owner), 1 << 16)
    for base in edges:
        mine = slice(None) if len(edges) == 1 else (owners >= base) & (owners < base + (1 << 16))
        both = ((owners[mine] - base).astype(np.uint64) << np.uint64(48)) | (keys[mine] >> _KEY)
        both.sort()
        new = np.flatnonzero(np.concatenate(([True], both[1:] != both[:-1]))) if len(both) else np.zeros(0, np.int64)
        often = np.diff(np.append(new, len(both)))
        both = both[new]
        parts.append(
            (both & np.uint64((1 << 48) - 1), (both >> np.uint64(48)).astype(np.int64) + base, 1 + np.log(often))
        )
    if not parts:
        return np.zeros(0, np.uint64), np.zeros(0, np.int64), np.zeros(0)
    key, owner, weight = (np.concatenate(column) for column in zip(*parts, strict=True))
    return key, owner, weight


def _numbers(words: Words, views: Views) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Distinct numbers of each piece: (value, piece), by piece."""
    place, owner = _positions(views)
    value = words.numbers[place]
    there = ~np.isnan(value)
    value, owner = value[there], owner[there]
    order = np.lexsort((value, owner))
    value, owner = value[order], owner[order]
    if len(value):
        new = np.concatenate(([True], (value[1:] != value[:-1]) | (owner[1:] != owner[:-1])))
        value, owner = value[new], owner[new]
    return value, owner


def _positions(views: Views) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    owner = np.repeat(np.arange(len(views.owner)), views.count)
    place = np.arange(len(owner)) + np.repeat(views.first - (np.cumsum(views.count) - views.count), views.count)
    return place, owner


def _rarity(frequency: NDArray[Any], total: int) -> NDArray[np.float64]:
    return np.log((total + _PRIOR) / (frequency + _UNSEEN)) + 1.0


def _ones(matrix: Any) -> Any:
    """The same places, each holding 1."""
    return sparse.csr_matrix((np.ones(len(matrix.data), np.float32), matrix.indices, matrix.indptr), matrix.shape)


def _csr(values: NDArray[Any], columns: NDArray[Any], rows: NDArray[Any], shape: tuple[int, int]) -> Any:
    ends = np.concatenate(([0], np.cumsum(np.bincount(rows, minlength=shape[0]))))
    return sparse.csr_matrix((values.astype(np.float32), columns.astype(np.int32), ends), shape=shape)
