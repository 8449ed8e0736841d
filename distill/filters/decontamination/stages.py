"""One eval set, ready to be compared with rows: the stages, from cheap to dear."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import xxhash
from numpy.typing import NDArray

from distill.filters.decontamination.evalsets import EvalItem
from distill.filters.decontamination.grams import GramTable, Hits, grams
from distill.filters.decontamination.likeness import LikenessIndex
from distill.filters.decontamination.meaning import Embeds, MeaningIndex
from distill.filters.decontamination.words import NUMBER, Lexicon, Words
from distill.filters.near.shingles import Shingles, hash_words
from distill.filters.normalise import plain

__all__ = ["STAGES", "Finding", "Limits", "SetIndex", "Texts"]

STAGES = ("exact", "number_changed", "contained", "ngram", "similar", "paraphrase", "meaning", "verdict")
"""Reasons, the surest first."""

_WHOLE = 5  # words under which a text says too little to be looked for inside others
_SENTENCE = 3  # words from which an item under _WHOLE counts where it is a whole sentence or line of a row
_SHORT_GRAM = 3
_ONE_CHANGED = 1.2  # what `similar` is raised by up to one n-gram: a changed last word leaves 5 of 7 runs of 8 words
_TEMPLATE = 8  # words beside the numbers from which a text with other numbers is the same problem
_SAME_WORDS = 0.6  # cosine without numbers from which texts with other numbers are
_FEW_NUMBERS = 0.5
_LOWEST, _HIGHEST, _USUAL = 0.45, 0.65, 0.6
_SENTENCE_END = re.compile(r"[.?!:;。？！：；؟।…]+(?:\s|$)|[\n\"“”„«»「」]|[。？！：；؟।]")
_ENOUGH_ITEMS = 100


@dataclass(frozen=True, slots=True)
class Limits:
    """The thresholds of a step that are the same for all sets."""

    ngram: int
    overlap: float
    similar: float


@dataclass(frozen=True, slots=True)
class Finding:
    """A row repeats an item of a set."""

    item: int
    stage: str
    score: float


@dataclass(frozen=True, slots=True)
class Texts:
    """Texts in the forms that the stages compare."""

    contents: Sequence[str]
    """As they came."""
    plain: list[str]
    runs: Shingles
    """Hashed words of the plain texts, in which every mark that carries meaning stays."""
    words: Words
    """Words and numbers, alike for two tellings of one thing."""

    @classmethod
    def of(cls, contents: Sequence[str], lexicon: Lexicon) -> Texts:
        comparable = [plain(content) for content in contents]
        return cls(contents, comparable, hash_words(comparable), lexicon.words(contents))


class SetIndex:
    """The items of one eval set."""

    def __init__(
        self, items: Sequence[EvalItem], limits: Limits, lexicon: Lexicon, encoder: Embeds | None = None
    ) -> None:
        self.name = items[0].set
        self.items = list(items)
        self._limits = limits
        texts = Texts.of([item.text for item in items], lexicon)
        self._words = texts.words
        self._plain = texts.plain
        self._exact: dict[str, int] = {text: number for number, text in reversed(list(enumerate(texts.plain)))}
        self._templates = {
            key: number for number, key in reversed(list(enumerate(_templates(texts.words)))) if key is not None
        }
        everything = np.arange(len(items), dtype=np.int64)
        self._counts = texts.runs.counts
        self._ngram = GramTable(texts.runs, limits.ngram, everything)
        self._ngram_sizes = _sizes(texts.runs, limits.ngram, everything)
        self._trigram = GramTable(texts.runs, _SHORT_GRAM, everything)
        self._trigram_sizes = _sizes(texts.runs, _SHORT_GRAM, everything)
        self._whole = {n: GramTable(texts.runs, n, everything) for n in range(_WHOLE, limits.ngram)}
        short = {n: np.flatnonzero(self._counts == n) for n in range(_SENTENCE, _WHOLE)}
        self._sentences = {n: GramTable(texts.runs, n, items) for n, items in short.items() if len(items)}
        self.likeness = LikenessIndex(texts.words)
        self.meaning = None if encoder is None else MeaningIndex([item.text for item in items], encoder)
        own = self.likeness.own()
        # Of two short questions one word is enough to ask for something else.
        few = _HIGHEST if np.median(self._counts) <= limits.ngram else _USUAL
        usual = float(np.quantile(own, 0.9)) + 0.1 if len(own) >= _ENOUGH_ITEMS else few
        self._usual = float(np.clip(usual, _LOWEST, _HIGHEST))
        """The score of a paraphrase where nothing was calibrated: 0.1 more than one in ten items reaches with another
        item of the set (the nearest ones of which may be twins), within bounds; a set of few items does not say."""

    @property
    def thresholds(self) -> dict[str, float]:
        """The thresholds of the scored stages where nothing was calibrated, by stage."""
        own = {"paraphrase": self._usual}
        return own if self.meaning is None else own | {"meaning": self.meaning.threshold}

    def copies(self, texts: Texts) -> dict[int, Finding]:
        """What every stage before the last one finds, by row. Their thresholds are fixed."""
        found: dict[int, Finding] = {}
        for row, text in enumerate(texts.plain):
            if text and text in self._exact:
                found[row] = Finding(self._exact[text], "exact", 1.0)
        if self._templates:
            for row, key in enumerate(_templates(texts.words)):
                if row not in found and key is not None and key in self._templates:
                    item = self._templates[key]
                    changed = texts.words.numbers_of(row) != self._words.numbers_of(item)
                    found[row] = Finding(item, "number_changed" if changed else "exact", 1.0)
        for row, finding in self._as_sentences(texts).items():
            found.setdefault(row, finding)
        for stage in (self._contained, self._ngrams, self._similarities):
            left = np.array([row for row in range(len(texts.plain)) if row not in found], np.int64)
            for row, finding in stage(texts.runs, left).items():
                found.setdefault(row, finding)
        return self._changed(texts.words, found)

    def scored(
        self, stage: str, texts: Texts, items: NDArray[np.int64], scores: NDArray[np.float64], threshold: float
    ) -> dict[int, Finding]:
        """The rows whose best item scores enough in a stage; NaN for rows that are not asked about."""
        rows = np.flatnonzero(scores >= threshold).tolist()
        found = {row: Finding(int(items[row]), stage, float(scores[row])) for row in rows}
        return self._changed(texts.words, found)

    def numbers(self, texts: Texts, row: int, item: int) -> tuple[list[float], list[float]]:
        """The numbers of an item, and those of a row."""
        return self._words.numbers_of(item), texts.words.numbers_of(row)

    def _changed(self, words: Words, found: dict[int, Finding]) -> dict[int, Finding]:
        """Findings whose words are the item's and whose numbers are not become their own kind."""
        rows: list[int] = []
        for row, finding in found.items():
            own, other = set(words.numbers_of(row)), set(self._words.numbers_of(finding.item))
            few = own and other and len(own & other) < _FEW_NUMBERS * min(len(own), len(other))
            if few and finding.stage not in ("exact", "number_changed"):
                rows.append(row)
        if rows:
            items = [found[row].item for row in rows]
            alike = self.likeness.masked(words, np.array(rows, np.int64), np.array(items, np.int64))
            for row, cosine in zip(rows, alike.tolist(), strict=True):
                if cosine >= _SAME_WORDS:
                    found[row] = Finding(found[row].item, "number_changed", cosine)
        return found

    def _contained(self, words: Shingles, rows: NDArray[np.int64]) -> dict[int, Finding]:
        found: dict[int, Finding] = {}
        for n, table in self._whole.items():
            hits = table.hits(words, rows)
            whole = (self._counts[hits.texts] == n) | (words.counts[hits.rows] == n)
            _best(found, hits, whole, np.ones(len(whole)), "contained")
        return found

    def _as_sentences(self, texts: Texts) -> dict[int, Finding]:
        """Short items that stand in a row as a sentence or a line of their own: three or four words in a row may be
        anybody's."""
        found: dict[int, Finding] = {}
        everything = np.arange(len(texts.plain), dtype=np.int64)
        for table in self._sentences.values():
            hits = table.hits(texts.runs, everything)
            for place in range(len(hits.rows)):
                row, item = int(hits.rows[place]), int(hits.texts[place])
                wanted = self._plain[item]
                if row not in found and wanted in map(plain, _SENTENCE_END.split(texts.contents[row])):
                    found[row] = Finding(item, "contained", 1.0)
        return found

    def _ngrams(self, words: Shingles, rows: NDArray[np.int64]) -> dict[int, Finding]:
        hits = self._ngram.hits(words, rows)
        sizes = _sizes(words, self._limits.ngram, hits.rows)
        share = hits.shared / np.maximum(np.minimum(sizes, self._ngram_sizes[hits.texts]), 1)
        found: dict[int, Finding] = {}
        _best(found, hits, share >= self._limits.overlap, share, "ngram")
        return found

    def _similarities(self, words: Shingles, rows: NDArray[np.int64]) -> dict[int, Finding]:
        hits = self._trigram.hits(words, rows)
        sizes = _sizes(words, _SHORT_GRAM, hits.rows)
        jaccard = hits.shared / np.maximum(sizes + self._trigram_sizes[hits.texts] - hits.shared, 1)
        shorter = np.minimum(words.counts[hits.rows], self._counts[hits.texts])
        n = self._limits.ngram
        wanted = self._limits.similar * np.where(shorter <= n, _ONE_CHANGED, np.interp(shorter, (n, 3 * n), (1.0, 0.5)))
        wanted = np.minimum(wanted, 1.0)
        found: dict[int, Finding] = {}
        _best(found, hits, jaccard >= wanted, jaccard, "similar")
        return found


def _templates(words: Words) -> list[bytes | None]:
    """A digest of each text with its numbers masked; None where it has none, or few words beside them."""
    masked = words.masked()
    is_number = np.concatenate(([0], np.cumsum(masked == np.uint64(NUMBER))))
    numbers = is_number[words.starts + words.counts] - is_number[words.starts]
    wanted = (numbers > 0) & (words.counts - numbers >= _TEMPLATE)
    return [
        xxhash.xxh3_128_digest(masked[start : start + count].tobytes()) if there else None
        for start, count, there in zip(words.starts.tolist(), words.counts.tolist(), wanted.tolist(), strict=True)
    ]


def _best(
    found: dict[int, Finding], hits: Hits, wanted: NDArray[np.bool_], score: NDArray[np.float64], stage: str
) -> None:
    """Keep the finding with the highest score of each row, the earliest item among equals."""
    for place in np.flatnonzero(wanted).tolist():
        row, value = int(hits.rows[place]), float(score[place])
        if row not in found or found[row].score < value:
            found[row] = Finding(int(hits.texts[place]), stage, value)


def _sizes(words: Shingles, n: int, rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Distinct n-grams of the texts named in `rows` (with repetition)."""
    owner = grams(words, n, np.unique(rows))[1]
    return np.bincount(owner, minlength=len(words.counts))[rows]
