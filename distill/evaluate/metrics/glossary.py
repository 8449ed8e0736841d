"""`glossary`: terms of the question stand in the prediction as the glossary allows.

    current account: compte courant
    card: [carte, carte bancaire]
    overdraft: {allow: [découvert], forbid: [surdécouvert]}

A term that the question holds has to appear in one of its allowed renderings, and in none that is forbidden. Case does
not matter; every inflected form is declared. A term inside a longer one does not count on its own. The value is the
share of (item, term) pairs that are rendered right.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np

from distill.errors import InputError
from distill.evaluate.holdout import Item
from distill.evaluate.metrics.base import Counted, Metric, ratio
from distill.io.yamlfile import read_yaml

__all__ = ["Glossary", "Term", "read_glossary"]

_UNSPACED = 0x2E80  # from here on scripts write words without spaces between them


@dataclass(frozen=True, slots=True)
class Term:
    """One entry."""

    source: str
    allowed: tuple[str, ...]
    forbidden: tuple[str, ...] = ()


@dataclass(frozen=True)
class Glossary(Metric):
    """How faithful predictions are to a glossary."""

    terms: tuple[Term, ...] = ()

    def check(self, items: Sequence[Item]) -> None:
        if not any(self._due(item.question) for item in items):
            raise InputError("no question holds a term of the glossary", field=f"metric {self.name}")

    def count(self, items: Sequence[Item], predictions: Sequence[str]) -> Counted:
        right, due = np.zeros(len(items)), np.zeros(len(items))
        figures: dict[str, dict[str, int]] = {}
        for row, (item, prediction) in enumerate(zip(items, predictions, strict=True)):
            text = _folded(prediction)
            for term in self._due(item.question):
                held = any(_find(form, text) for form in term.allowed)
                held = held and not any(_find(form, text) for form in term.forbidden)
                right[row] += held
                due[row] += 1
                figure = figures.setdefault(term.source, {"n": 0, "right": 0})
                figure["n"] += 1
                figure["right"] += held
        sums = np.stack([right, due], 1)
        per_item = right / np.maximum(due, 1)
        details: dict[str, Any] = {"terms": dict(sorted(figures.items()))}
        return Counted(per_item, sums, ratio, weight=(due > 0).astype(np.float64), details=details)

    def definition(self) -> str:
        return f"share of the questions' terms rendered as the glossary of {len(self.terms)} allows"

    def _due(self, question: str) -> list[Term]:
        """The terms that `question` holds, longer ones first."""
        text, due = _folded(question), list[Term]()
        for term in sorted(self.terms, key=lambda term: -len(term.source)):
            text, times = _pattern(term.source).subn("\n", text)
            if times:
                due.append(term)
        return due


def read_glossary(path: Path) -> tuple[Term, ...]:
    """Read and check a glossary.

    Raises:
        InputError: names file, line and term.
    """
    value, lines = read_yaml(path)
    if not isinstance(value, dict) or not value:
        raise InputError("should map terms to their renderings", path=path)
    terms: list[Term] = []
    for source, given in cast("dict[Any, Any]", value).items():
        line = lines.get((source,))
        entry = cast("dict[str, Any]", given if isinstance(given, dict) else {"allow": given})
        if unknown := entry.keys() - {"allow", "forbid"}:
            raise InputError(f"unknown key {sorted(unknown)[0]!r}: `allow` or `forbid`", path=path, line=line)
        allowed, forbidden = _texts(entry.get("allow")), _texts(entry.get("forbid", []))
        if not str(source).strip() or not allowed or forbidden is None:
            raise InputError(
                "should be a text, a list of texts, or `allow` and `forbid`", path=path, line=line, field=str(source)
            )
        terms.append(Term(str(source), allowed, forbidden))
    return tuple(terms)


def _texts(value: Any) -> tuple[str, ...] | None:
    values = cast("list[Any]", value) if isinstance(value, list) else [value]
    if not all(isinstance(text, str) and text.strip() for text in values):
        return None
    return tuple(values)


def _find(form: str, text: str) -> bool:
    return _pattern(form).search(text) is not None


def _pattern(form: str) -> re.Pattern[str]:
    """The form as whole words, where its script has words."""
    folded = _folded(form)
    start = r"(?<!\w)" if folded[:1].isalnum() and ord(folded[0]) < _UNSPACED else ""
    end = r"(?!\w)" if folded[-1:].isalnum() and ord(folded[-1]) < _UNSPACED else ""
    return re.compile(start + re.escape(folded) + end)


def _folded(text: str) -> str:
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())
