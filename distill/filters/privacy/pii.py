"""Personal data and secrets: masked, or the row dropped.

A value gets a placeholder that says what it was and nothing else. Within a row the same value has the same
placeholder in every column and every turn, however it is written (`+1 415 555 2671` and `(415) 555-2671`), so a
conversation stays one that can be followed. A value that only one place announces (`call me at …`) is masked where
the row repeats it, too.

What is written of a row must not hold what was masked: rows that earlier steps dropped are masked as well, and so is
the evidence against them. Evidence of this filter counts, it never quotes.
"""

# Arrow's arrays are generic over types that only run time knows.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportUnknownParameterType=false, reportMissingTypeArgument=false
from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, get_args

import numpy as np
import pyarrow as pa

from distill.filters.base import Rewritten, Verdicts
from distill.filters.privacy.columns import change, holds_text, matching, replaced, strings
from distill.filters.privacy.detect import GATE, Detector
from distill.filters.privacy.mask import Mask
from distill.filters.text import sources
from distill.recipe import PiiStep
from distill.recipe.quality import PiiKind

__all__ = ["PiiFilter"]

_PROOF = frozenset(
    {"id", "slot", "leaf", "kind", "dims", "labels", "seeds", "finish", "teacher", "model", "prompt_digest", "keys"}
)
"""Columns of a run's rows that say where a row came from: what the recipe declares, and digests."""

_TOKENS = "logprobs"
"""The answer once more, in pieces that no pattern can read: a row with anything to hide loses it whole."""


class PiiFilter:
    """Masks values (`mask`), or drops rows that hold any (`drop`; the reason is the gravest kind). The score is the
    number of values found."""

    def __init__(self, step: PiiStep, name: str = "pii") -> None:
        self.name = name
        self._counts: Counter[str] = Counter()
        self._fresh: Counter[str] = Counter()
        """What was replaced since `take_books`."""
        self._fields = step.fields
        self._drop = step.action == "drop"
        self._detector = Detector(step.kinds, regions=step.regions, allow=step.allow)
        self._people = None
        if step.model is not None:
            from distill.filters.privacy.names import People

            self._people = People(step.model)

    def judge(self, rows: pa.Table) -> Verdicts:
        return self._search(rows)[0]

    def rewrite(self, rows: pa.Table, evidence: Sequence[str]) -> Rewritten:
        verdicts, masks = self._search(rows)
        shown = list(evidence)
        columns: dict[str, Any] = {}
        for name in self._columns(rows) if masks else ():
            column, changed, values = rows.column(name), list[int](), list[Any]()
            for row, mask in masks.items():
                before = column[row].as_py()
                after = change(before, mask.hide)
                if after != before:
                    changed.append(row)
                    values.append(after)
            if changed:
                columns[name] = replaced(column, changed, values)
        if masks and _TOKENS in rows.column_names:
            columns[_TOKENS] = replaced(rows.column(_TOKENS), list(masks), [None] * len(masks))
        for row, mask in masks.items():
            shown[row] = mask.hide_excerpt(shown[row])
            self._fresh += mask.replaced
        return Rewritten(verdicts, columns, shown)

    @property
    def counts(self) -> Counter[str]:
        """Values replaced so far, by kind."""
        return self._counts + self._fresh

    def take_books(self) -> dict[str, Any]:
        fresh, self._fresh = self._fresh, Counter()
        return dict(fresh)

    def add_books(self, books: dict[str, Any]) -> None:
        self._counts += Counter(books)

    def hide(self, text: str) -> str:
        mask = self._mask([text])
        return mask.hide(text) if mask.found else text

    def _search(self, rows: pa.Table) -> tuple[Verdicts, dict[int, Mask]]:
        verdicts = Verdicts.kept(rows.num_rows)
        verdicts.score[:] = 0.0
        masks: dict[int, Mask] = {}
        for row, texts in self._candidates(rows).items():
            mask = self._mask(texts)
            if not mask.found:
                continue
            masks[row] = mask
            total = mask.found.total()
            verdicts.score[row] = total
            if self._drop:
                verdicts.drop(row, _gravest(mask.found), _counted(mask.found), score=total)
        return verdicts, masks

    def _mask(self, texts: list[str]) -> Mask:
        return Mask(texts, self._detector, people=self._people.find if self._people is not None else None)

    def _candidates(self, rows: pa.Table) -> Mapping[int, list[str]]:
        """The texts of the rows that may hold a value, by row."""
        columns = self._columns(rows)
        likely = np.full(rows.num_rows, self._people is not None)
        for name in columns:
            likely |= matching(rows.column(name), GATE)
        chosen = np.flatnonzero(likely)
        values = rows.select(columns).take(chosen)
        lists = [values.column(name).to_pylist() for name in columns]
        return {
            row: [text for column in lists for text in strings(column[place])]
            for place, row in enumerate(chosen.tolist())
        }

    def _columns(self, rows: pa.Table) -> list[str]:
        if self._fields:
            return sources(rows, self._fields)
        names = set(rows.column_names)
        proof = _PROOF if {"prompt_digest", "keys"} <= names else {"id"}
        return [field.name for field in rows.schema if field.name not in proof | {_TOKENS} and holds_text(field.type)]


def _gravest(found: Counter[PiiKind]) -> str:
    return next(kind for kind in get_args(PiiKind) if found[kind])


def _counted(found: Counter[PiiKind]) -> str:
    return ", ".join(f"{found[kind]} {re.sub('_', ' ', kind)}" for kind in get_args(PiiKind) if found[kind])
