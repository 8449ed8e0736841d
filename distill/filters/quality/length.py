"""Rows that are too short or too long, in characters, words, or tokens of a tokenizer."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
from tokenizers import Tokenizer

from distill import models
from distill.errors import InputError
from distill.filters.base import Verdicts
from distill.filters.text import texts
from distill.recipe import LengthStep

__all__ = ["LengthFilter"]


class LengthFilter:
    """Drops a row outside the bounds (`too_short`, `too_long`). The score is the measured length; of a kept row it is
    the tokens where a bound on tokens is set, else the characters where one on characters is, else the words."""

    def __init__(self, step: LengthStep, name: str = "length", *, folder: Path | None = None) -> None:
        """
        Raises:
            InputError: the tokenizer is not there or cannot be read.
        """
        self.name = name
        self._step = step
        self._tokenizer = _tokenizer(step.tokenizer, folder or Path()) if step.tokenizer is not None else None

    def judge(self, rows: pa.Table) -> Verdicts:
        step, verdicts = self._step, Verdicts.kept(rows.num_rows)
        chars = step.min_chars is not None or step.max_chars is not None
        words = step.min_words is not None or step.max_words is not None
        contents = texts(rows, step.fields)
        for row, content in enumerate(contents):
            if words:
                self._check(verdicts, row, len(content.split()), step.min_words, step.max_words, "words")
            if chars and verdicts.keep[row]:
                self._check(verdicts, row, len(content), step.min_chars, step.max_chars, "characters")
        if self._tokenizer is not None:
            left = [row for row in range(rows.num_rows) if verdicts.keep[row]]
            encoded = self._tokenizer.encode_batch_fast([contents[row] for row in left], add_special_tokens=False)
            for row, tokens in zip(left, encoded, strict=True):
                self._check(verdicts, row, len(tokens), step.min_tokens, step.max_tokens, "tokens")
        return verdicts

    @staticmethod
    def _check(verdicts: Verdicts, row: int, count: int, least: int | None, most: int | None, unit: str) -> None:
        if least is not None and count < least:
            verdicts.drop(row, "too_short", f"{count} {unit}, at least {least} wanted", score=count)
        elif most is not None and count > most:
            verdicts.drop(row, "too_long", f"{count} {unit}, at most {most} wanted", score=count)
        else:
            verdicts.score[row] = count


def _tokenizer(name: str, folder: Path) -> Tokenizer:
    given = folder / Path(name).expanduser()
    if not given.is_file():
        given = (given if given.is_dir() else models.folder(name)) / "tokenizer.json"
    if not given.is_file():
        raise InputError("there is no tokenizer.json in this folder", path=given.parent, field="tokenizer")
    try:
        tokenizer = Tokenizer.from_file(str(given))
    except Exception as error:  # the library raises bare Exception
        raise InputError(f"not a tokenizer: {error}", path=given, field="tokenizer") from None
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer
