"""Rows that give away what a model was told: instructions, control tokens, placeholders that were never filled in."""

# Arrow's arrays are generic over types that only run time knows.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportUnknownParameterType=false, reportMissingTypeArgument=false
from __future__ import annotations

import re
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute

from distill.assets import find
from distill.errors import InputError
from distill.filters.base import Verdicts
from distill.filters.decontamination.runs import Runs, words_of
from distill.filters.normalise import excerpt
from distill.filters.text import Absent, texts
from distill.recipe import LeakageStep

__all__ = ["LeakageFilter"]

pc: Any = pyarrow.compute

_CONTROL = (
    r"<\|[a-z_]{2,30}\|>|</?s>|\[/?INST\]|<</?SYS>>|<(?:start|end)_of_turn>|<\|?(?:bos|eos|pad|eot)(?:_id)?\|?>"
    r"|(?m:^#{2,4} ?(?:Instruction|Response|System Prompt|Human|Assistant):)"
)
_PLACEHOLDER = (
    r"\{\{ ?[A-Za-z_][\w.]{0,40} ?\}\}|\{% ?[a-z]+ [^%\n]{0,80}%\}"
    r"|\[(?i:(?:your|insert|enter|add)(?: [\w'-]{1,20}){1,4}|(?:company|customer|recipient|product) name|placeholder)\]"
    r"|<(?i:(?:insert|your)(?: [\w'-]{1,20}){1,4})>"
)
_CODE = re.compile(r"```.*?(?:```|\Z)|`[^`\n]*`", re.S)
_JINJA = re.compile(r"\{\{.*?\}\}|\{%.*?%\}|\{#.*?#\}", re.S)


class LeakageFilter:
    """Drops a row whose answer repeats its system turn (`repeats_system`), which repeats an instruction file
    (`repeats_instructions`), or holds a control token (`control_token`), an empty placeholder (`placeholder`; not
    looked for in code) or one of the step's own phrases (`phrase`)."""

    def __init__(self, step: LeakageStep, name: str = "leakage", *, folder: Path) -> None:
        self.name = name
        self._step = step
        self._phrases = tuple(phrase.casefold() for phrase in step.phrases)
        literals = [part for file in step.instructions for part in _literal(file, folder)]
        self._instructions = Runs(literals, step.min_words)
        # The system turn is the same in many rows.
        self._of_system = lru_cache(maxsize=256)(self._runs)

    def judge(self, rows: pa.Table) -> Verdicts:
        verdicts = Verdicts.kept(rows.num_rows)
        contents = texts(rows, self._step.fields)
        self._tokens(verdicts, contents)
        try:
            systems, answers = texts(rows, ("system",)), texts(rows, ("response",))
        except Absent:
            systems, answers = [""] * rows.num_rows, contents
        for row, content in enumerate(contents):
            if not verdicts.keep[row]:
                continue
            if systems[row]:
                _check(verdicts, row, "repeats_system", self._of_system(systems[row]), words_of(answers[row]))
            if self._instructions and verdicts.keep[row]:
                _check(verdicts, row, "repeats_instructions", self._instructions, words_of(content))
            if self._phrases and verdicts.keep[row]:
                folded = content.casefold()
                phrase = next((phrase for phrase in self._phrases if phrase in folded), None)
                if phrase is not None:
                    verdicts.drop(row, "phrase", excerpt(phrase))
        return verdicts

    def _runs(self, system: str) -> Runs:
        return Runs([system], self._step.min_words)

    def _tokens(self, verdicts: Verdicts, contents: list[str]) -> None:
        column = pa.array(contents, pa.large_string())
        for reason, pattern, expression in (
            ("control_token", _CONTROL, re.compile(_CONTROL)),
            ("placeholder", _PLACEHOLDER, re.compile(_PLACEHOLDER)),
        ):
            for row in np.flatnonzero(np.asarray(pc.match_substring_regex(column, pattern))).tolist():
                text = contents[row] if reason == "control_token" else _CODE.sub(" ", contents[row])
                match = expression.search(text)
                if match is not None and verdicts.keep[row]:
                    verdicts.drop(row, reason, excerpt(match.group(), 80))


def _check(verdicts: Verdicts, row: int, reason: str, runs: Runs, words: list[str]) -> None:
    spans = runs.covered(words)
    if spans:
        begin, end = max(spans, key=lambda span: span[1] - span[0])
        verdicts.drop(row, reason, f"“{excerpt(' '.join(words[begin:end]), 160)}”", score=float(end - begin))


def _literal(name: str, folder: Path) -> list[str]:
    """The parts of a prompt file that every prompt made from it holds."""
    path = find("prompts", name, base=folder)
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot be read: {error}", path=path) from None
    return _JINJA.split(text)
