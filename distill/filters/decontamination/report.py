"""What decontamination found, told from the eval sets' side: which rows, which items, and which items are now suspect.

An item is suspect when rows repeat it: a model that saw the unfiltered rows has seen it, and so has one trained on
whatever these rows were made from. It is to be watched when only kept rows come close to it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from distill.filters.decontamination.evalsets import EvalItem
from distill.filters.decontamination.stages import STAGES, Finding
from distill.filters.normalise import excerpt

__all__ = ["Hit", "SetReport"]

_EXAMPLES = 3
"""Examples a reason."""

_TEXT = 1200
"""Characters of a text that an example shows."""


@dataclass(frozen=True, slots=True)
class Hit:
    """A row and the item that it repeats or comes close to."""

    row: str
    field: str
    text: str
    finding: Finding


@dataclass(slots=True)
class _Item:
    rows: int = 0
    best: Hit | None = None
    near: Hit | None = None
    """The closest kept row in the grey zone."""


@dataclass(slots=True)
class SetReport:
    """The books of one eval set. Memory grows with the items that were found, never with the rows."""

    name: str
    items: Sequence[EvalItem]
    rows: Counter[str] = field(default_factory=Counter[str])
    """Rows by reason."""
    _found: dict[int, _Item] = field(default_factory=dict[int, _Item])
    _examples: dict[str, list[Hit]] = field(default_factory=dict[str, list[Hit]])

    def drop(self, hit: Hit) -> None:
        """A row repeats an item."""
        self.rows[hit.finding.stage] += 1
        entry = self._found.setdefault(hit.finding.item, _Item())
        entry.rows += 1
        if entry.best is None or _rank(hit) < _rank(entry.best):
            entry.best = hit
        examples = self._examples.setdefault(hit.finding.stage, [])
        if len(examples) < _EXAMPLES:
            examples.append(hit)

    def near(self, hit: Hit) -> None:
        """A kept row is somewhat like an item."""
        entry = self._found.setdefault(hit.finding.item, _Item())
        if entry.near is None or hit.finding.score > entry.near.finding.score:
            entry.near = hit

    def add(self, later: SetReport) -> None:
        """Count what was found in later rows."""
        self.rows += later.rows
        for number, found in later._found.items():
            entry = self._found.setdefault(number, _Item())
            entry.rows += found.rows
            if found.best is not None and (entry.best is None or _rank(found.best) < _rank(entry.best)):
                entry.best = found.best
            if found.near is not None and (entry.near is None or found.near.finding.score > entry.near.finding.score):
                entry.near = found.near
        for stage, hits in later._examples.items():
            examples = self._examples.setdefault(stage, [])
            examples += hits[: _EXAMPLES - len(examples)]

    def as_books(self) -> dict[str, Any]:
        """What `of_books` reads, as JSON."""
        return {
            "name": self.name,
            "rows": self.rows,
            "found": [
                [number, entry.rows, _flat(entry.best), _flat(entry.near)] for number, entry in self._found.items()
            ],
            "examples": {stage: [_flat(hit) for hit in hits] for stage, hits in self._examples.items()},
        }

    @classmethod
    def of_books(cls, items: Sequence[EvalItem], books: dict[str, Any]) -> SetReport:
        """The report that `as_books` was asked for."""
        found = {number: _Item(rows, _hit(best), _hit(near)) for number, rows, best, near in books["found"]}
        examples = {stage: [hit for flat in hits if (hit := _hit(flat))] for stage, hits in books["examples"].items()}
        return cls(books["name"], items, Counter(books["rows"]), found, examples)

    @property
    def contaminated(self) -> int:
        """Items that rows repeat."""
        return sum(entry.rows > 0 for entry in self._found.values())

    @property
    def watched(self) -> int:
        """Items that kept rows come close to, and no row repeats."""
        return sum(not entry.rows for entry in self._found.values())

    def as_json(self, hide: Callable[[str], str] = str) -> dict[str, Any]:
        """Args:
        hide: what is done to a row's text before it is written.
        """
        found = sorted(self._found.items())
        total = sum(self.rows.values())
        return {
            "items": len(self.items),
            "contaminated_rows": total,
            "rows_by_reason": dict(sorted(self.rows.items(), key=lambda entry: STAGES.index(entry[0]))),
            "contaminated_items": self.contaminated,
            "contaminated_share": round(self.contaminated / max(len(self.items), 1), 4),
            "suspect_items": [
                {"id": self.items[number].id, "rows": entry.rows, **self._shown(entry.best, hide, whole=False)}
                for number, entry in found
                if entry.best is not None
            ],
            "watched_items": [
                {"id": self.items[number].id, **self._shown(entry.near, hide, whole=False)}
                for number, entry in found
                if entry.best is None and entry.near is not None
            ],
            "examples": [
                {"item": self.items[hit.finding.item].id, **self._shown(hit, hide, whole=True)}
                for stage in STAGES
                for hit in self._examples.get(stage, ())
            ],
        }

    def _shown(self, hit: Hit, hide: Callable[[str], str], *, whole: bool) -> dict[str, Any]:
        finding = hit.finding
        shown: dict[str, Any] = {
            "row": hit.row,
            "field": hit.field,
            "reason": finding.stage,
            "score": round(finding.score, 4),
        }
        if whole:
            shown["row_text"] = hide(excerpt(hit.text, _TEXT))
            shown["item_text"] = excerpt(self.items[finding.item].text, _TEXT)
        return shown


def _rank(hit: Hit) -> tuple[int, float]:
    return STAGES.index(hit.finding.stage), -hit.finding.score


def _flat(hit: Hit | None) -> list[Any] | None:
    if hit is None:
        return None
    finding = hit.finding
    return [hit.row, hit.field, hit.text, int(finding.item), finding.stage, float(finding.score)]


def _hit(flat: list[Any] | None) -> Hit | None:
    return None if flat is None else Hit(flat[0], flat[1], flat[2], Finding(flat[3], flat[4], flat[5]))
