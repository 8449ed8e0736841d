"""Near-duplicates, and rows that stay too close to a seed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from distill.filters.base import Verdicts
from distill.filters.near.index import CHARS, LONG, SHORT, WORDS, Match, NearIndex
from distill.filters.near.known import Forgotten, other_rows, read_index, write_index
from distill.filters.normalise import excerpt
from distill.filters.text import ids, texts
from distill.recipe import MinHashStep

__all__ = ["MinHashFilter"]


_FIRST_COUNT, _LAST_COUNT = 16, 4_096
_BEFORE = 0.98
"""Threshold while the shingles of a template are not known: rows that share nothing but one stay under it."""


class MinHashFilter:
    """Drops a row that is too similar to a kept row, to one of another dataset (`near_duplicate`) or to a seed
    (`near_seed`).

    Evidence is the longest run that both texts share. The filter remembers every row it has kept.

    Shingles that are common to many rows are counted on a sample before the first row, or, in a run, where nothing is
    known at first, on the rows that have come so far, kept or not, whenever their number has doubled. So what decides
    about a row is the rows before it and their number, never where a batch ends.
    """

    def __init__(
        self, step: MinHashStep, name: str = "minhash", *, seeds: Sequence[tuple[str, str]] = (), folder: Path = Path()
    ) -> None:
        self.name = name
        self._step = step
        self._fields = step.fields
        self._index = folder / Path(step.index).expanduser() if step.index else None
        self._rows, self._forgotten = _index(step, step.short_threshold), Forgotten()
        for names, contents in other_rows(step.against, step.fields, folder):
            self._rows.add(contents, names)
        self._others = len(self._rows)
        if self._index is not None:
            for names, contents in read_index(self._index, "minhash", step.fields):
                self._rows.add(contents, names)
        self._common: int | None = None
        self._counting = step.ignore_common is not None
        self._seen: list[str] = []
        if self._counting:
            self._rows.drop_at(max(_BEFORE, step.threshold), _BEFORE)
        self._seeds = None
        if step.seeds and seeds:
            # A seed is not lost with the row, so a short row need not be spared.
            self._seeds = _index(step, step.threshold)
            self._seeds.add([text for _, text in seeds], [id_ for id_, _ in seeds])
        # Kernels are loaded (the first time on a machine: compiled) now, not while answers wait.
        self._rows.load()
        self._rows.long_texts = 0  # rows are counted, not what stands in an index or another dataset

    @property
    def calibrated(self) -> dict[str, Any]:
        """How candidates are found, and what share of similar pairs that finds."""
        bands, step = self._rows.bands, self._step
        found = {similarity: bands.finds(similarity) for similarity in (step.threshold, 0.8, 0.9)}
        chars, words = f"{step.size or CHARS} characters", f"{step.size or WORDS} words"
        return {
            "threshold": step.threshold,
            "short_threshold": self._rows.rules.short_threshold,
            "short": f"both texts under {SHORT} words",
            "shingles": {"char": chars, "word": words, "auto": f"{chars}; {words} over {LONG} words"}[step.shingle],
            "long_rows": self._rows.long_texts,
            "bands": bands.count,
            "rows_of_a_band": bands.rows,
            "expected_recall": {str(at): round(share, 4) for at, share in found.items() if at >= step.threshold},
        } | ({} if self._common is None else {"common_shingles": self._common})

    @property
    def needs_sample(self) -> bool:
        """Whether it waits for a sample, to count common shingles on."""
        return self._counting and not self._seen

    def calibrate(self, rows: pa.Table) -> None:
        """Leave common shingles out of account; bands are chosen from the threshold alone."""
        self._count(texts(rows, self._fields))
        self._counting = False

    def settings(self) -> dict[str, Any]:
        """The shingles that do not count."""
        return {"common": self._common, "table": self._rows.rules.common.tolist()}

    def adopt(self, settings: dict[str, Any]) -> None:
        """Take over the settings of the filter that this one is a copy of."""
        self._common, self._counting = settings["common"], False
        self._rows.drop_at(self._step.threshold, self._step.short_threshold)
        self._rows.leave_out(np.array(settings["table"], np.uint64))

    def take_books(self) -> dict[str, Any]:
        """Long texts that were seen since this was last asked for."""
        long, self._rows.long_texts = self._rows.long_texts, 0
        return {"long": long}

    def add_books(self, books: dict[str, Any]) -> None:
        """Count what a copy has seen."""
        self._rows.long_texts += int(books["long"])

    @property
    def nbytes(self) -> int:
        return self._rows.nbytes

    def keys(self, rows: pa.Table) -> tuple[NDArray[np.int64], NDArray[np.uint64]]:
        """The band values of each row."""
        return self._rows.keys(texts(rows, self._fields))

    def judge(self, rows: pa.Table) -> Verdicts:
        verdicts = Verdicts.kept(rows.num_rows)
        contents, names = texts(rows, self._fields), ids(rows)
        if self._seeds is not None:
            # A seed is a question: with no fields named it is the row's prompt that may stay too close to it.
            prompts = contents if self._fields else texts(rows, ("prompt",))
            for row, match in enumerate(self._seeds.judge(prompts, names, add=False)):
                if match is not None:
                    _drop(verdicts, row, "near_seed", match)
        left: list[int] = np.flatnonzero(verdicts.keep).tolist()
        begin = 0
        numbers = np.full(rows.num_rows, -1, np.int64)
        while begin < len(left):
            some = left[begin : begin + self._until_count()]
            own = [contents[row] for row in some]
            for row, match in zip(some, self._rows.judge(own, [names[row] for row in some]), strict=True):
                if match is not None:
                    _drop(verdicts, row, "near_duplicate", match)
            numbers[some] = self._rows.numbers
            begin += len(some)
            if self._counting:
                self._see(own)
        return verdicts if self._index is None else replace(verdicts, numbers=numbers)

    def _until_count(self) -> int:
        """Rows until common shingles are counted again."""
        if not self._counting:
            return 1 << 30
        border = _FIRST_COUNT
        while border <= len(self._seen):
            border *= 2
        return border - len(self._seen)

    def _see(self, some: list[str]) -> None:
        self._seen += some
        count = len(self._seen)
        if count >= _FIRST_COUNT and count & (count - 1) == 0:
            self._count(self._seen)
        if count >= _LAST_COUNT:
            self._counting, self._seen = False, []

    def _count(self, some: list[str]) -> None:
        self._rows.drop_at(self._step.threshold, self._step.short_threshold)
        self._common = self._rows.ignore_common(some, self._step.ignore_common or 1.0)

    def forget(self, numbers: NDArray[np.int64]) -> None:
        self._forgotten.add(numbers)

    def save(self, folder: Path | None = None) -> None:
        """Write the index file, where the step names one: what was kept, without the other datasets."""
        if self._index is not None:
            path = self._index if folder is None else folder / f"{self.name}.parquet"
            left = self._forgotten.left(self._rows.kept(self._others), self._others)
            write_index(path, "minhash", self._fields, left)


def _index(step: MinHashStep, short_threshold: float) -> NearIndex:
    return NearIndex(
        threshold=step.threshold,
        unit=step.shingle,
        size=step.size,
        permutations=step.permutations,
        short_threshold=short_threshold,
    )


def _drop(verdicts: Verdicts, row: int, reason: str, match: Match) -> None:
    evidence = f"shares “{excerpt(match.shared)}”" if match.shared else "no long run in common"
    verdicts.drop(row, reason, evidence, match.id, round(match.similarity, 4))
