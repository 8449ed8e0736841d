"""Rows that share text with an eval set, each with the item it shares it with.

Stages, from cheap to dear; the first that holds decides:

    exact      the normalised texts are equal
    contained  a short text (5 words to one n-gram) stands whole inside the other one, in either direction
    ngram      the shorter text shares at least `overlap` of its n-grams (8 words) with the other, in either direction
    similar    their runs of three words overlap (Jaccard) by `similar` for texts of one n-gram, by half of it from
               three n-grams on and by what lies between for those between: two long texts share much less by
               chance. This sees the edits that break every n-gram

The prompt and the response of a row are compared apart, so that an item that is a whole prompt is found as such.
What this does not catch: paraphrases in other words, and translations. A problem with changed numbers is caught only
through the words around them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from distill.filters.base import Verdicts
from distill.filters.evalsets import EvalItem
from distill.filters.grams import GramTable, Hits, grams
from distill.filters.normalise import excerpt, plain
from distill.filters.shingles import Shingles, hash_words
from distill.filters.text import parts
from distill.recipe import DecontaminateStep

__all__ = ["DecontaminateFilter"]

_WHOLE = 5  # words under which a text says too little to be looked for inside others
_SHORT_GRAM = 3


@dataclass(frozen=True, slots=True)
class _Finding:
    item: int
    stage: str
    score: float


class DecontaminateFilter:
    """Drops a row that repeats an eval item. The reason is the stage, `matched_id` is `set:item`, the evidence shows
    both texts."""

    def __init__(self, step: DecontaminateStep, name: str = "decontaminate", *, items: Sequence[EvalItem] = ()) -> None:
        self.name = name
        self._fields = step.fields
        self._overlap, self._similar, self._n = step.overlap, step.similar, step.ngram
        self._items = list(items)
        comparable = [plain(item.text) for item in self._items]
        self._exact: dict[str, int] = {text: number for number, text in reversed(list(enumerate(comparable)))}
        words = hash_words(comparable)
        counts = words.counts
        everything = np.arange(len(counts), dtype=np.int64)
        self._counts = counts
        self._ngram = GramTable(words, step.ngram, everything)
        self._ngram_sizes = _distinct(words, step.ngram)
        self._trigram = GramTable(words, _SHORT_GRAM, everything)
        self._trigram_sizes = _distinct(words, _SHORT_GRAM)
        self._runs = {n: GramTable(words, n, everything) for n in range(_WHOLE, step.ngram)}

    def judge(self, rows: pa.Table) -> Verdicts:
        verdicts = Verdicts.kept(rows.num_rows)
        if not self._items:
            return verdicts
        for field, contents in parts(rows, self._fields):
            for row, finding in self._find(contents).items():
                if not verdicts.keep[row]:
                    continue
                item = self._items[finding.item]
                shown = f"{field}: “{excerpt(contents[row], 200)}” — {item.set}: “{excerpt(item.text, 200)}”"
                verdicts.drop(row, finding.stage, shown, item.name, round(finding.score, 4))
        return verdicts

    def _find(self, contents: list[str]) -> dict[int, _Finding]:
        """The finding of each row that has one."""
        comparable = [plain(content) for content in contents]
        found: dict[int, _Finding] = {}
        for row, text in enumerate(comparable):
            if text and text in self._exact:
                found[row] = _Finding(self._exact[text], "exact", 1.0)
        words = hash_words(comparable)
        for stage in (self._contained, self._ngrams, self._similarities):
            left = np.array([row for row in range(len(contents)) if row not in found], np.int64)
            for row, finding in stage(words, left).items():
                found.setdefault(row, finding)
        return found

    def _contained(self, words: Shingles, rows: np.ndarray) -> dict[int, _Finding]:
        found: dict[int, _Finding] = {}
        for n, table in self._runs.items():
            hits = table.hits(words, rows)
            whole = (self._counts[hits.texts] == n) | (words.counts[hits.rows] == n)
            _best(found, hits, whole, np.ones(len(whole)), "contained")
        return found

    def _ngrams(self, words: Shingles, rows: np.ndarray) -> dict[int, _Finding]:
        hits = self._ngram.hits(words, rows)
        sizes = _sizes(words, self._n, hits.rows)
        share = hits.shared / np.maximum(np.minimum(sizes, self._ngram_sizes[hits.texts]), 1)
        found: dict[int, _Finding] = {}
        _best(found, hits, share >= self._overlap, share, "ngram")
        return found

    def _similarities(self, words: Shingles, rows: np.ndarray) -> dict[int, _Finding]:
        hits = self._trigram.hits(words, rows)
        sizes = _sizes(words, _SHORT_GRAM, hits.rows)
        jaccard = hits.shared / np.maximum(sizes + self._trigram_sizes[hits.texts] - hits.shared, 1)
        shorter = np.minimum(words.counts[hits.rows], self._counts[hits.texts])
        wanted = self._similar * np.interp(shorter, (self._n, 3 * self._n), (1.0, 0.5))
        found: dict[int, _Finding] = {}
        _best(found, hits, jaccard >= wanted, jaccard, "similar")
        return found


def _best(found: dict[int, _Finding], hits: Hits, wanted: np.ndarray, score: np.ndarray, stage: str) -> None:
    """Keep the finding with the highest score of each row, the earliest item among equals."""
    for place in np.flatnonzero(wanted).tolist():
        row, value = int(hits.rows[place]), float(score[place])
        if row not in found or found[row].score < value:
            found[row] = _Finding(int(hits.texts[place]), stage, value)


def _distinct(words: Shingles, n: int) -> np.ndarray:
    """Distinct n-grams of every text."""
    return _sizes(words, n, np.arange(len(words.counts), dtype=np.int64))


def _sizes(words: Shingles, n: int, rows: np.ndarray) -> np.ndarray:
    """Distinct n-grams of the texts named in `rows` (with repetition)."""
    wanted = np.unique(rows)
    owner = grams(words, n, wanted)[1]
    return np.bincount(owner, minlength=len(words.counts))[rows]
