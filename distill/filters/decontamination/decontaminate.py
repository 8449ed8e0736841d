"""Rows that share text with an eval set, each with the item it shares it with.

Stages, from cheap to dear; the first that holds decides:

    exact           the normalised texts are equal
    number_changed  the words are the item's, the numbers are others: a twin of a problem, its own kind. Whatever stage
                    finds such a row, this is its reason
    contained       a short text (5 words to one n-gram) stands whole inside the other one, in either direction; an item
                    of 3 or 4 words is a sentence or a line of the row
    ngram           the shorter text shares at least `overlap` of its n-grams (8 words) with the other, in either
                    direction; counted exactly, not estimated
    similar         their runs of three words overlap (Jaccard): by 1.2 times `similar` up to one n-gram, where one word
                    can be the one that counts; above by `similar`, falling to half of it at three n-grams, since two
                    long texts share much less by chance. This sees the edits that break every n-gram
    paraphrase      TF-IDF cosine of words and word pairs plus the overlap of the numbers (`likeness`), of the whole
                    text, its lines and windows of a long one, against the item and windows of a long item
    meaning         cosine of sentence embeddings, where `embeddings` names a model
    verdict         a teacher says that the two are the same problem, where `verdict` names one and the score of one of
                    the two stages before is near its threshold; rows it calls different stay

The prompt and the response of a row are compared apart, so that an item that is a whole prompt is found as such.

The threshold of the last stage is the user's (`threshold`), or set by their own clean rows to the rate of clean rows
that may be lost (`false_positive_rate`, see `calibration`), or else 0.1 more than one in ten items of the eval set
reaches with another item, between 0.45 and 0.65: what serves where rows come a few at a time, as in generation. The
other thresholds are fixed.

What this does not catch: a problem retold without its numbers in other words, most paraphrases of texts that have no
numbers (a third of LLM rephrasings of MMLU questions is found at 1 % of clean rows lost), code rewritten with other
names, translations. A set whose items are filled-in templates makes clean rows look like leaks: its own threshold, or
none of its templates, is for the user to say.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from distill.filters.base import Verdicts
from distill.filters.decontamination.doubts import Doubts, Opinion
from distill.filters.decontamination.evalsets import EvalItem
from distill.filters.decontamination.meaning import Embeds
from distill.filters.decontamination.report import Hit, SetReport
from distill.filters.decontamination.stages import STAGES, Finding, Limits, SetIndex, Texts
from distill.filters.decontamination.thresholds import Thresholds
from distill.filters.decontamination.words import Lexicon
from distill.filters.normalise import excerpt
from distill.filters.text import ids, parts
from distill.recipe import DecontaminateStep

__all__ = ["DecontaminateFilter"]

_GREY = 0.85
"""Share of the threshold from which a kept row is told as close."""


class DecontaminateFilter:
    """Drops a row that repeats an eval item. The reason is the stage, `matched_id` is `set:item`, the evidence shows
    both texts. A kept row's score is the highest of the last stage."""

    def __init__(
        self,
        step: DecontaminateStep,
        name: str = "decontaminate",
        *,
        items: Sequence[EvalItem] = (),
        clean: pa.Table | None = None,
        encoder: Embeds | None = None,
        opinion: Opinion | None = None,
    ) -> None:
        """Args:
        clean: rows known to be clean, which set the thresholds.
        encoder: what the stage `meaning` compares with; without one there is no such stage.
        opinion: who gives the verdicts that the step asks for; without one its thresholds decide.
        """
        self.name = name
        self._step = step
        self._lexicon = Lexicon()
        limits = Limits(step.ngram, step.overlap, step.similar)
        names = dict.fromkeys(item.set for item in items)
        self._sets = [
            SetIndex([item for item in items if item.set == set_name], limits, self._lexicon, encoder)
            for set_name in names
        ]
        self._reports, self._fresh = self._empty(), self._empty()
        self._limits = Thresholds(step, self._sets, self._lexicon)
        self._doubts = None if step.verdict is None or opinion is None else Doubts(step.verdict, opinion)
        if clean is not None:
            self._limits.calibrate(clean, known=True)

    @property
    def calibrated(self) -> dict[str, Any]:
        """What the thresholds were set by; empty while nothing was calibrated."""
        return self._limits.calibrated

    @property
    def needs_sample(self) -> bool:
        """Whether a sample of the rows should set the thresholds."""
        return self._limits.wanted

    def calibrate(self, rows: pa.Table) -> None:
        """Set the thresholds by rows among which leaks may stand."""
        self._limits.calibrate(rows, known=False)

    def judge(self, rows: pa.Table) -> Verdicts:
        verdicts = Verdicts.kept(rows.num_rows)
        if not self._sets:
            return verdicts
        names = ids(rows)
        best: dict[int, tuple[tuple[int, float], SetIndex, Hit, Texts]] = {}
        likeness = np.full(rows.num_rows, np.nan)
        for field, contents in parts(rows, self._step.fields):
            texts = Texts.of(contents, self._lexicon)
            for place, index in enumerate(self._sets):
                found, items, scores = self._find(place, field, texts, contents)
                likeness = np.fmax(likeness, scores)
                for row, finding in found.items():
                    hit = Hit(names[row], field, contents[row], finding)
                    self._fresh[place].drop(hit)
                    rank = (STAGES.index(finding.stage), -finding.score)
                    if row not in best or rank < best[row][0]:
                        best[row] = (rank, index, hit, texts)
                limit = self._limits.limit(place, field, "paraphrase")
                for row in np.flatnonzero(scores >= _GREY * limit).tolist():
                    if row not in found:
                        finding = Finding(int(items[row]), "paraphrase", float(scores[row]))
                        self._fresh[place].near(Hit(names[row], field, contents[row], finding))
        verdicts.score[:] = np.round(likeness, 4)
        for row, (_, index, hit, texts) in best.items():
            item, finding = index.items[hit.finding.item], hit.finding
            evidence = _evidence(hit, item)
            if finding.stage == "number_changed":
                evidence += _numbers(*index.numbers(texts, row, finding.item))
            verdicts.drop(row, finding.stage, evidence, item.name, round(finding.score, 4))
        return verdicts

    def settings(self) -> dict[str, Any]:
        """The thresholds."""
        return self._limits.settings()

    def adopt(self, settings: dict[str, Any]) -> None:
        """Take over the thresholds of the filter that this one is a copy of."""
        self._limits.adopt(settings)

    def take_books(self) -> dict[str, Any]:
        """What was found since this was last asked for, by the places of the eval sets."""
        fresh, self._fresh = self._fresh, self._empty()
        return {str(place): report.as_books() for place, report in enumerate(fresh) if report.rows or report.watched}

    def add_books(self, books: dict[str, Any]) -> None:
        """Count what a copy has found."""
        self._merge()
        for place, found in books.items():
            self._reports[int(place)].add(SetReport.of_books(self._sets[int(place)].items, found))

    def _merge(self) -> None:
        for report, fresh in zip(self._reports, self._fresh, strict=True):
            report.add(fresh)
        self._fresh = self._empty()

    def _empty(self) -> list[SetReport]:
        return [SetReport(index.name, index.items) for index in self._sets]

    def report(self, hide: Callable[[str], str] = str) -> dict[str, Any]:
        """What was found so far, by eval set.

        Args:
            hide: what is done to a row's text before it is shown.
        """
        self._merge()
        shown: dict[str, Any] = {}
        for place, report in enumerate(self._reports):
            shown[report.name] = {"threshold": self._limits.shown(place), **report.as_json(hide)}
            if self._doubts is not None:
                shown[report.name]["verdicts"] = self._doubts.as_json()
        return shown

    def clean_loss(self, rows: pa.Table) -> dict[str, Any]:
        """What the thresholds cost of some rows, see `Thresholds`."""
        return self._limits.clean_loss(rows)

    @property
    def reports(self) -> Sequence[SetReport]:
        """One a set."""
        self._merge()
        return self._reports

    def _find(
        self, place: int, field: str, texts: Texts, contents: list[str]
    ) -> tuple[dict[int, Finding], np.ndarray, np.ndarray]:
        """Findings by row, and for the rows that reached the stage `paraphrase` the best item and its score (else
        NaN)."""
        index, n = self._sets[place], len(contents)
        found = index.copies(texts)
        items, scores = np.zeros(n, np.int64), np.full(n, np.nan)
        left = _others(found, n)
        likeness = index.likeness.best(texts.words.take(left))
        items[left], scores[left] = likeness.item, likeness.score
        limit = self._limits.limit(place, field, "paraphrase")
        found |= index.scored("paraphrase", texts, items, scores, limit)
        found = self._doubted(index, contents, found, items, scores, limit)
        if index.meaning is not None:
            left = _others(found, n)
            nearest, cosines = np.zeros(n, np.int64), np.full(n, np.nan)
            meaning = index.meaning.best([contents[int(row)] for row in left])
            nearest[left], cosines[left] = meaning.item, meaning.score
            limit = self._limits.limit(place, field, "meaning")
            found |= index.scored("meaning", texts, nearest, cosines, limit)
            found = self._doubted(index, contents, found, nearest, cosines, limit)
        return found, items, scores

    def _doubted(
        self,
        index: SetIndex,
        contents: list[str],
        found: dict[int, Finding],
        items: np.ndarray,
        scores: np.ndarray,
        limit: float,
    ) -> dict[int, Finding]:
        """The findings after a teacher was asked about rows whose scores are near the threshold."""
        if self._doubts is None:
            return found
        low, high = self._doubts.zone(limit)
        rows = np.flatnonzero((scores >= low) & (scores < high)).tolist()
        # A twin with other numbers is sure: its words are the item's.
        rows = [row for row in rows if row not in found or found[row].stage in ("paraphrase", "meaning")]
        said = self._doubts.settle([(contents[row], index.items[int(items[row])].text) for row in rows])
        found = dict(found)
        for row, same in zip(rows, said, strict=True):
            if same:
                found[row] = Finding(int(items[row]), "verdict", float(scores[row]))
            elif same is False:
                found.pop(row, None)
        return found


def _others(found: dict[int, Finding], count: int) -> np.ndarray:
    return np.array([row for row in range(count) if row not in found], np.int64)


def _evidence(hit: Hit, item: EvalItem) -> str:
    return f"{hit.field}: “{excerpt(hit.text, 200)}” — {item.set}: “{excerpt(item.text, 200)}”"


def _numbers(item: list[float], row: list[float]) -> str:
    before, after = (" ".join(f"{value:g}" for value in values[:12]) for values in (item, row))
    return f" — numbers {before or 'none'} became {after or 'none'}"
