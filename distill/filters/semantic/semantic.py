"""Rows that say the same in other words.

Every row is compared with the rows kept before it (and with the seeds) by the cosine of their embeddings, whatever
batch they came in. The threshold is a number, or `auto`:

    over a file         it is calibrated on a sample of the file before the first row is judged (`semantic_threshold`),
                        and what it would do to the rows is said before it does it
    in a run            nothing is known at first: the first 1,000 rows are judged at 0.98; then, and at 2,000 and 4,000
                        rows, the threshold is calibrated on all rows that have come this far, kept or not

So what decides about a row is the rows before it and their number, never where a batch ends.
"""

# Arrow's arrays are generic over types that only run time knows.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportUnknownParameterType=false, reportMissingTypeArgument=false
from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from distill.filters.base import Verdicts
from distill.filters.near.ids import Ids
from distill.filters.normalise import excerpt, plain
from distill.filters.semantic.embedding import Embedder, load_embedder, resolve_model
from distill.filters.semantic.neighbours import NeighbourIndex
from distill.filters.semantic.threshold import Calibration, calibrate
from distill.filters.text import Absent, ids, texts
from distill.recipe import SemanticStep

__all__ = ["SAMPLE_ROWS", "SemanticFilter"]

SAMPLE_ROWS = 4_000
"""Rows that a calibration looks at: at 0.01 that is 40 rows over the threshold, and under a minute with an encoder."""

_BEFORE = 0.98
"""Threshold while nothing is calibrated: above what unrelated rows of one domain reach (of banking77's rows 0.02 % are
lost to one of another intent)."""
_FIRST_ROWS = 1_000
_SHOWN = 100


class SemanticFilter:
    """Drops a row that is too similar to a kept row (`same_meaning`) or to a seed (`same_as_seed`). The evidence shows
    both texts, `matched_id` the kept row, `score` the cosine similarity."""

    def __init__(
        self,
        step: SemanticStep,
        name: str = "semantic",
        *,
        seeds: Sequence[tuple[str, str]] = (),
        folder: Path | None = None,
        embedder: Embedder | None = None,
        note: Callable[[str], None] = lambda text: None,
    ) -> None:
        self.name = name
        self._step = step
        self._note = note
        self._folder = folder or Path.cwd()
        if embedder is None:
            resolve_model(step.model, self._folder, note)  # a model that is not here is an error now, not after a round
        self._loaded = embedder
        self._index: NeighbourIndex | None = None
        self._ids, self._shown = Ids(), Ids()
        self._seeds = list(seeds) if step.seeds else []
        self._seed_index: NeighbourIndex | None = None
        self._judged = 0
        self._seen: _Seen | None = _Seen() if step.threshold == "auto" else None
        self._calibration: Calibration | None = None
        self.calibrated: dict[str, Any] = {}

    @property
    def needs_sample(self) -> bool:
        """With a fixed threshold, too, a sample shows what it would do."""
        return not self.calibrated and self._judged == 0

    @property
    def nbytes(self) -> int:
        return (self._index.nbytes if self._index is not None else 0) + self._ids.nbytes + self._shown.nbytes

    def calibrate(self, rows: pa.Table) -> None:
        """Measure the threshold on a sample of the rows to come."""
        try:
            sample = _Seen.of(_evenly(rows), self._step)
        except Absent:
            return  # such rows are refused one by one, with their lines
        vectors = self._embed(sample.texts)
        found = calibrate(vectors, self._step.rate, groups=sample.numbers(self._step.apart), apart=self._step.apart)
        if found is not None:
            self._set(found)
            self._seen = None
        elif self._step.threshold == "auto":
            few = f"too few different rows to calibrate on: {_BEFORE} is used"
            self.calibrated = {
                "model": self._embedder.name,
                "threshold": _BEFORE,
                "rows": len(sample.texts),
                "why": few,
            }

    def judge(self, rows: pa.Table) -> Verdicts:
        verdicts = Verdicts.kept(rows.num_rows)
        contents, names = texts(rows, self._step.fields), ids(rows)
        vectors = self._embed(contents)
        groups = _values(rows, self._step.apart)
        # A seed is a question: with no fields named it is the row's prompt that may stay too close to it.
        asked = vectors
        if self._seeds and not self._step.fields:
            asked = self._embed(texts(rows, ("prompt",)))
        start = 0
        while start < rows.num_rows:
            stop = min(rows.num_rows, start + self._until_change())
            threshold = self._threshold()
            self._compare_seeds(verdicts, asked, contents, threshold, start, stop)
            self._compare_rows(verdicts, vectors, contents, names, threshold, start, stop)
            self._judged += stop - start
            if self._seen is not None:
                self._seen.add(contents[start:stop], groups[start:stop])
                self._calibrate_again()
            start = stop
        return verdicts

    def _compare_seeds(
        self,
        verdicts: Verdicts,
        asked: NDArray[np.float32],
        contents: list[str],
        threshold: float,
        start: int,
        stop: int,
    ) -> None:
        if not self._seeds:
            return
        if self._seed_index is None:
            self._seed_index = NeighbourIndex(self._embedder.size)
            self._seed_index.judge(self._embed([text for _, text in self._seeds]), 2.0)
        match, score = self._seed_index.judge(asked[start:stop], threshold, add=False)
        for place in np.flatnonzero(match >= 0).tolist():
            id_, text = self._seeds[int(match[place])]
            shown = _evidence(contents[start + place], text, threshold)
            verdicts.drop(start + place, "same_as_seed", shown, id_, round(float(score[place]), 4))

    def _compare_rows(
        self,
        verdicts: Verdicts,
        vectors: NDArray[np.float32],
        contents: list[str],
        names: list[str],
        threshold: float,
        start: int,
        stop: int,
    ) -> None:
        left = np.flatnonzero(verdicts.keep[start:stop]) + start
        if self._index is None:
            self._index = NeighbourIndex(self._embedder.size)
        match, score = self._index.judge(vectors[left], threshold)
        for place, row in enumerate(left.tolist()):
            if match[place] < 0:
                if vectors[row].any():  # the index numbers what it keeps
                    self._ids.append(names[row])
                    self._shown.append(excerpt(contents[row], _SHOWN))
                continue
            number = int(match[place])
            shown = _evidence(contents[row], self._shown[number], threshold)
            verdicts.drop(row, "same_meaning", shown, self._ids[number], round(float(score[place]), 4))

    @property
    def _embedder(self) -> Embedder:
        """Loaded when the first text comes: torch takes seconds, and a chain may only be checked."""
        if self._loaded is None:
            self._loaded = load_embedder(self._step.model, folder=self._folder, note=self._note)
        return self._loaded

    def _threshold(self) -> float:
        if self._step.threshold != "auto":
            return self._step.threshold
        return self._calibration.at(self._judged + 1) if self._calibration is not None else _BEFORE

    def _until_change(self) -> int:
        """Rows until the threshold may change."""
        if self._step.threshold != "auto":
            return 1 << 30
        borders = [_FIRST_ROWS] if self._seen is not None else []
        borders += [self._calibration.rows] if self._calibration is not None else []
        nearest = 1 << 30
        for border in borders:
            while border <= self._judged:
                border *= 2
            nearest = min(nearest, border)
        return nearest - self._judged

    def _calibrate_again(self) -> None:
        seen = self._seen
        if seen is None or self._judged not in (_FIRST_ROWS, 2 * _FIRST_ROWS, SAMPLE_ROWS):
            return
        groups = seen.numbers(self._step.apart)
        found = calibrate(self._embed(seen.texts), self._step.rate, groups=groups, apart=self._step.apart)
        if found is not None:
            self._set(found)
        if self._judged >= SAMPLE_ROWS:
            self._seen = None

    def _set(self, found: Calibration) -> None:
        fixed = None if self._step.threshold == "auto" else self._step.threshold
        self._calibration = found
        self.calibrated = {"model": self._embedder.name, **found.as_json()}
        if fixed is not None:
            self.calibrated |= {"used": fixed, "share_with_a_neighbour": round(found.share_over(fixed), 4)}
        warning = found.warning(fixed)
        if warning is not None:
            self.calibrated["warning"] = warning

    def _embed(self, contents: Sequence[str]) -> NDArray[np.float32]:
        def show(done: int, total: int) -> None:
            if total > 1_000:
                self._note(f"{self.name}: embedded {done:,} of {total:,} texts")

        return self._embedder.embed(contents, progress=show)


class _Seen:
    """Different texts for a calibration, with the values of the `apart` column."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self._groups: list[str] = []
        self._known: set[str] = set()

    @classmethod
    def of(cls, rows: pa.Table, step: SemanticStep) -> _Seen:
        seen = cls()
        seen.add(texts(rows, step.fields), _values(rows, step.apart))
        return seen

    def add(self, contents: Sequence[str], groups: Sequence[str]) -> None:
        for text, group in zip(contents, groups, strict=True):
            key = plain(text)
            if key and key not in self._known:
                self._known.add(key)
                self.texts.append(text)
                self._groups.append(group)

    def numbers(self, apart: str | None) -> NDArray[np.int64] | None:
        if apart is None:
            return None
        return np.unique(np.array(self._groups, dtype=object).astype(str), return_inverse=True)[1].astype(np.int64)


def _evenly(rows: pa.Table) -> pa.Table:
    """At most SAMPLE_ROWS of the rows, from all over the table."""
    if rows.num_rows <= SAMPLE_ROWS:
        return rows
    return rows.take(np.linspace(0, rows.num_rows - 1, SAMPLE_ROWS).astype(np.int64))


def _values(rows: pa.Table, column: str | None) -> list[str]:
    if column is None:
        return [""] * rows.num_rows
    if column not in rows.column_names:
        hint = f"the rows have: {', '.join(rows.column_names)}"
        raise Absent(f"no column {column}", field="apart", hint=hint)
    return [str(value) for value in rows.column(column).to_pylist()]


def _evidence(text: str, kept: str, threshold: float) -> str:
    return f"“{excerpt(text, _SHOWN)}” — kept: “{excerpt(kept, _SHOWN)}”, over {threshold:.3f}"
