"""A corpus whose duplicates are known: rows of one domain of about 80 words, a fifth of them edits of earlier rows.

Words follow Zipf's law over one vocabulary, and a quarter of the text is set phrases that all rows draw from, as rows
of one domain do. Of 100 rows 79 are unrelated, 20 are copies of one of these with 5, 10 or 20 % of the words replaced,
left out or added, and one belongs to a cluster of identical rows.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

__all__ = ["UNRELATED", "Part", "generate"]

UNRELATED, IDENTICAL = 0, -1
_BLOCK = 10_000
_WORDS = 80


@dataclass(frozen=True)
class Part:
    """Rows in a row. `edited` is the percentage of edited words: UNRELATED, IDENTICAL, 5, 10 or 20; `source` the
    number of the row that was edited, -1 for an unrelated one."""

    first: int
    texts: list[str]
    edited: np.ndarray
    source: np.ndarray


def generate(rows: int, *, words: int = _WORDS, seed: int = 1) -> Iterator[Part]:
    """The corpus in parts of 10,000 rows; sources of edits stand in the same part or, identical ones, anywhere."""
    random = np.random.default_rng(seed)
    vocabulary, phrases = _vocabulary(random)
    cluster = _row(random, words, len(vocabulary), phrases)
    cluster_first = -1
    for first in range(0, rows, _BLOCK):
        count = min(_BLOCK, rows - first)
        kinds = random.choice([UNRELATED, 5, 10, 20, IDENTICAL], count, p=[0.79, 0.07, 0.07, 0.06, 0.01])
        kinds[0] = UNRELATED
        source = np.full(count, -1, np.int64)
        made: list[np.ndarray] = []
        originals: list[int] = []
        for row, kind in enumerate(kinds.tolist()):
            if kind == UNRELATED:
                made.append(_row(random, words, len(vocabulary), phrases))
                originals.append(row)
            elif kind == IDENTICAL:
                made.append(cluster)
                cluster_first = first + row if cluster_first < 0 else cluster_first
                source[row] = cluster_first
            else:
                origin = originals[int(random.integers(len(originals)))]
                made.append(_edit(random, made[origin], kind / 100, len(vocabulary)))
                source[row] = first + origin
        texts = [" ".join([vocabulary[word] for word in row.tolist()]) for row in made]
        yield Part(first, texts, kinds, source)


def _vocabulary(random: np.random.Generator) -> tuple[list[str], list[np.ndarray]]:
    letters = np.array(list("etaoinshrdlucmfwypvbgkjqxz"))
    weights = 1 / (np.arange(len(letters)) + 2.0)
    words: dict[str, None] = {}
    while len(words) < 20_000:
        size = 2 + int(random.poisson(3.2))
        words["".join(random.choice(letters, size, p=weights / weights.sum()))] = None
    phrases = [_zipf(random, int(random.integers(3, 7)), len(words)) for _ in range(2_000)]
    return list(words), phrases


def _zipf(random: np.random.Generator, count: int, vocabulary: int) -> np.ndarray:
    """Word numbers with probability about 1 / rank."""
    return (np.exp(random.random(count) * np.log(vocabulary)) - 1).astype(np.int64)


def _row(random: np.random.Generator, words: int, vocabulary: int, phrases: list[np.ndarray]) -> np.ndarray:
    size = max(8, int(random.normal(words, words / 8)))
    row = _zipf(random, size, vocabulary)
    for _ in range(size // 18):
        phrase = phrases[int(random.integers(len(phrases)))]
        at = int(random.integers(max(1, size - len(phrase))))
        row[at : at + len(phrase)] = phrase[: size - at]
    return row


def _edit(random: np.random.Generator, row: np.ndarray, share: float, vocabulary: int) -> np.ndarray:
    """Replace, leave out or add words: `share` of them, rounded down, at least one."""
    places = random.choice(len(row), max(1, int(len(row) * share)), replace=False)
    actions = random.integers(0, 3, len(places))
    edited = row.copy()
    replaced = places[actions == 0]
    edited[replaced] = _zipf(random, len(replaced), vocabulary)
    added = places[actions == 1]
    edited = np.insert(edited, added, _zipf(random, len(added), vocabulary))
    gone = places[actions == 2]
    shift = np.searchsorted(np.sort(added), gone, side="right")
    return np.delete(edited, gone + shift)
