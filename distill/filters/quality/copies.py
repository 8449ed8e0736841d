"""Rows whose answer says what the question says, and nothing more."""

from __future__ import annotations

import pyarrow as pa

from distill.filters.base import Verdicts
from distill.filters.decontamination.runs import Runs, words_of
from distill.filters.normalise import excerpt, plain
from distill.filters.text import Absent, texts
from distill.recipe import CopiesStep

__all__ = ["CopiesFilter"]

_RUN = 3  # words: two in a row that both texts have say little


class CopiesFilter:
    """Drops a row whose answer is the question (`is_question`), or is made of the question's words
    (`copies_question`). The score is the share of the answer's words that stand in runs of three or more which the
    question holds too."""

    def __init__(self, step: CopiesStep, name: str = "copies") -> None:
        self.name = name
        self._step = step

    def judge(self, rows: pa.Table) -> Verdicts:
        step, verdicts = self._step, Verdicts.kept(rows.num_rows)
        try:
            prompts, responses = texts(rows, ("prompt",)), texts(rows, ("response",))
        except Absent:
            return verdicts  # rows without answers copy nothing
        for row, (prompt, response) in enumerate(zip(prompts, responses, strict=True)):
            words = words_of(response)
            if not words or not prompt:
                continue
            if plain(prompt) == plain(response):
                verdicts.drop(row, "is_question", f"“{excerpt(response, 120)}”", score=1.0)
                continue
            spans = Runs([prompt], _RUN).covered(words)
            share = verdicts.score[row] = round(sum(end - begin for begin, end in spans) / len(words), 4)
            if share >= step.threshold and len(words) >= step.min_words:
                begin, end = max(spans, key=lambda span: span[1] - span[0])
                evidence = f"{share:.0%} of the answer, such as “{excerpt(' '.join(words[begin:end]), 120)}”"
                verdicts.drop(row, "copies_question", evidence, score=share)
        return verdicts
