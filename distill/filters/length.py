"""Rows that are too short or too long."""

from __future__ import annotations

import pyarrow as pa

from distill.filters.base import Verdicts
from distill.filters.text import texts
from distill.recipe import LengthStep

__all__ = ["LengthFilter"]


class LengthFilter:
    """Drops a row outside the bounds (`too_short`, `too_long`). The score is the measured length; of a kept row it is
    the characters where a bound on characters is set, else the words."""

    def __init__(self, step: LengthStep, name: str = "length") -> None:
        self.name = name
        self._step = step

    def judge(self, rows: pa.Table) -> Verdicts:
        step, verdicts = self._step, Verdicts.kept(rows.num_rows)
        chars = step.min_chars is not None or step.max_chars is not None
        words = step.min_words is not None or step.max_words is not None
        for row, content in enumerate(texts(rows, step.fields)):
            if words:
                self._check(verdicts, row, len(content.split()), step.min_words, step.max_words, "words")
            if chars and verdicts.keep[row]:
                self._check(verdicts, row, len(content), step.min_chars, step.max_chars, "characters")
        return verdicts

    @staticmethod
    def _check(verdicts: Verdicts, row: int, count: int, least: int | None, most: int | None, unit: str) -> None:
        if least is not None and count < least:
            verdicts.drop(row, "too_short", f"{count} {unit}, at least {least} wanted", score=count)
        elif most is not None and count > most:
            verdicts.drop(row, "too_long", f"{count} {unit}, at most {most} wanted", score=count)
        else:
            verdicts.score[row] = count
