"""Near-duplicates, and rows that stay too close to a seed."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from distill.filters.base import Verdicts
from distill.filters.near import Match, NearIndex
from distill.filters.normalise import excerpt
from distill.filters.text import ids, texts
from distill.recipe import MinHashStep

__all__ = ["MinHashFilter"]


class MinHashFilter:
    """Drops a row that is too similar to a kept row (`near_duplicate`) or to a seed (`near_seed`).

    Evidence is the longest run that both texts share. The filter remembers every row it has kept.
    """

    def __init__(self, step: MinHashStep, name: str = "minhash", *, seeds: Sequence[tuple[str, str]] = ()) -> None:
        self.name = name
        self._fields = step.fields
        self._rows = _index(step)
        self._seeds = None
        if step.seeds and seeds:
            self._seeds = _index(step)
            self._seeds.judge([text for _, text in seeds], [id_ for id_, _ in seeds])

    def judge(self, rows: pa.Table) -> Verdicts:
        verdicts = Verdicts.kept(rows.num_rows)
        contents, names = texts(rows, self._fields), ids(rows)
        if self._seeds is not None:
            # A seed is a question: with no fields named it is the row's prompt that may stay too close to it.
            prompts = contents if self._fields else texts(rows, ("prompt",))
            for row, match in enumerate(self._seeds.judge(prompts, names, add=False)):
                if match is not None:
                    _drop(verdicts, row, "near_seed", match)
        left = np.flatnonzero(verdicts.keep).tolist()
        matches = self._rows.judge([contents[row] for row in left], [names[row] for row in left])
        for row, match in zip(left, matches, strict=True):
            if match is not None:
                _drop(verdicts, row, "near_duplicate", match)
        return verdicts


def _index(step: MinHashStep) -> NearIndex:
    return NearIndex(threshold=step.threshold, unit=step.shingle, size=step.size, permutations=step.permutations)


def _drop(verdicts: Verdicts, row: int, reason: str, match: Match) -> None:
    evidence = f"shares “{excerpt(match.shared)}”" if match.shared else "no long run in common"
    verdicts.drop(row, reason, evidence, match.id, round(match.similarity, 4))
