"""Rows whose code does not parse. Code is parsed, never run.

Python by its own grammar (doctest prompts are taken off), JSON strictly, YAML and TOML by their libraries. Blocks of
other languages are not judged: nothing is said of what was not parsed.
"""

from __future__ import annotations

import ast
import doctest
import re
import textwrap
import tomllib
import warnings
from collections.abc import Iterator
from typing import Any, cast

import pyarrow as pa
import yaml

from distill.filters.base import Verdicts
from distill.filters.normalise import excerpt
from distill.filters.text import texts
from distill.io import loads
from distill.recipe import CodeStep

__all__ = ["CodeFilter"]

_FENCE = re.compile(
    r"^[ \t]{0,8}(`{3,}|~{3,})[ \t]*([A-Za-z0-9_+.#-]*)[^\n]*\n(.*?)(?:^[ \t]{0,8}\1[`~]*[ \t]*$|\Z)", re.M | re.S
)
_LANGUAGES = {"py": "python", "python3": "python", "pycon": "python", "yml": "yaml"}
_LONGEST = 200_000  # characters: a parser of deeply nested code needs far more memory than its text


class CodeFilter:
    """Drops a row with a block that does not parse (`bad_python`, `bad_json`, …), or without any code (`no_code`)
    where code is required. Evidence is the parser's message. The score is the number of blocks that parsed."""

    def __init__(self, step: CodeStep, name: str = "code") -> None:
        self.name = name
        self._step = step
        self._fields = step.fields or ("response",)

    def judge(self, rows: pa.Table) -> Verdicts:
        verdicts = Verdicts.kept(rows.num_rows)
        for row, content in enumerate(texts(rows, self._fields)):
            blocks = self._blocks(content)
            if not blocks and self._step.required:
                verdicts.drop(row, "no_code", f"“{excerpt(content, 120)}”")
                continue
            judged = [(language, code) for language, code in blocks if language in self._step.languages]
            verdicts.score[row] = len(judged)
            for language, code in judged:
                problem = _problem(language, code)
                if problem is not None:
                    verdicts.drop(row, f"bad_{language}", excerpt(problem, 240), score=len(judged))
                    break
        return verdicts

    def _blocks(self, content: str) -> list[tuple[str, str]]:
        """(language, code) of every block; a fence without a language holds the language of unfenced text."""
        blocks: list[tuple[str, str]] = []
        for match in _FENCE.finditer(content):
            language = match[2].lower()
            blocks.append((_LANGUAGES.get(language, language) or self._step.unfenced or "", match[3]))
        if not blocks and self._step.unfenced is not None and content.strip():
            return [(self._step.unfenced, content)]
        return blocks


def _problem(language: str, code: str) -> str | None:
    if len(code) > _LONGEST:
        return f"{len(code)} characters, at most {_LONGEST} are parsed"
    try:
        match language:
            case "python":
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")  # invalid escapes and the like parse
                    ast.parse(_without_prompts(textwrap.dedent(code)))
            case "json":
                loads(code)
            case "yaml":
                _exhaust(cast(Any, yaml).parse(code, Loader=yaml.SafeLoader))
            case _:
                tomllib.loads(code)
    except SyntaxError as error:
        line = (error.text or "").strip()
        return f"line {error.lineno}: {error.msg}" + (f" in “{excerpt(line, 100)}”" if line else "")
    except (ValueError, RecursionError, MemoryError, yaml.YAMLError) as error:
        return " ".join(str(error).split()) or type(error).__name__
    return None


def _without_prompts(code: str) -> str:
    if not code.lstrip().startswith(">>>"):
        return code
    return "".join(example.source for example in doctest.DocTestParser().get_examples(code))


def _exhaust(events: Iterator[Any]) -> None:
    for _ in events:
        pass
