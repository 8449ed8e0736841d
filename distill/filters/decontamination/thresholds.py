"""The thresholds of the scored stages: given, calibrated, or the eval set's own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from distill.filters.decontamination.calibration import LEAK, LEAST_ROWS, Scored, common_rate, threshold, weights
from distill.filters.decontamination.meaning import LEAK as MEANT
from distill.filters.decontamination.stages import SetIndex, Texts
from distill.filters.decontamination.words import Lexicon
from distill.filters.text import parts
from distill.recipe import DecontaminateStep

__all__ = ["Thresholds"]

_BATCH = 1024
_NEVER = 9.0  # above every score
_ABOVE = 0.15  # how far rows as they come may set a threshold above the eval set's own
_MANY = 0.3  # share of leaks from which rows as they come say little of clean ones
_LOW = 0.65  # share of a set's own threshold under which a calibrated one needs a word
_EMBEDDED = 4000  # rows that are embedded to calibrate
_LEAKS = {"paraphrase": LEAK, "meaning": MEANT}


class Thresholds:
    """One threshold a set, a field and a stage."""

    def __init__(self, step: DecontaminateStep, sets: Sequence[SetIndex], lexicon: Lexicon) -> None:
        self._step, self._sets, self._lexicon = step, sets, lexicon
        self._set: dict[tuple[int, str, str], float] = {}
        self.calibrated: dict[str, Any] = {}
        """What they were set by; empty while nothing was calibrated."""

    @property
    def wanted(self) -> bool:
        """Whether they should be calibrated and were not yet."""
        rate = self._step.false_positive_rate
        return rate is not None and self._step.threshold is None and not self.calibrated and bool(self._sets)

    def limit(self, place: int, field: str, stage: str) -> float:
        """The score at which a row repeats an item."""
        if self._step.threshold is not None and stage == "paraphrase":
            return self._step.threshold
        return self._set.get((place, field, stage), self._sets[place].thresholds[stage])

    def settings(self) -> dict[str, Any]:
        """What `adopt` takes over, as JSON."""
        return {"set": [[*key, value] for key, value in self._set.items()], "calibrated": self.calibrated}

    def adopt(self, settings: dict[str, Any]) -> None:
        """Take over what other thresholds for the same sets were calibrated to."""
        self._set = {(place, field, stage): value for place, field, stage, value in settings["set"]}
        self.calibrated = settings["calibrated"]

    def shown(self, place: int) -> dict[str, float]:
        """The thresholds of one set, by field and stage; by stage where they are the same for all fields."""
        if set_ := {f"{field} {stage}": value for (of, field, stage), value in self._set.items() if of == place}:
            return {name: round(value, 4) for name, value in set_.items()}
        return {stage: round(self.limit(place, "", stage), 4) for stage in self._sets[place].thresholds}

    def calibrate(self, rows: pa.Table, *, known: bool) -> None:
        """Set them by rows, all of them `known` to be clean or not."""
        rate = self._step.false_positive_rate
        if rate is None or not self.wanted:
            return
        facts = {"from": "clean" if known else "rows", "rows": rows.num_rows, "false_positive_rate": rate}
        if any(index.meaning is not None for index in self._sets):
            some = np.unique(np.linspace(0, rows.num_rows - 1, min(rows.num_rows, _EMBEDDED)).astype(np.int64))
            rows = rows.take(some)  # an encoder reads some fifty rows a second
        scored: dict[tuple[int, str, str], Scored] = {}
        for field, contents in parts(rows, self._step.fields):
            there = np.array([bool(content) for content in contents], bool)
            for place, index in enumerate(self._sets):
                copies = self._copies(index, contents)
                for stage in index.thresholds:
                    best, runners = self._scores(index, stage, contents, runners=not known)
                    if known:  # what an earlier stage finds among them counts as lost too
                        scored[place, field, stage] = Scored(np.where(copies, np.inf, best), np.ones(len(best)))
                    elif (use := there & ~copies).sum() >= LEAST_ROWS:
                        clean = np.where(copies, 0.0, 1.0)
                        clean[use] = weights(best[use], runners[use], rate, leak=_LEAKS[stage])
                        scored[place, field, stage] = Scored(best, clean)
        if not scored or rows.num_rows < LEAST_ROWS:
            note = f"fewer than {LEAST_ROWS} rows with text: the thresholds are those of the eval sets"
            self.calibrated = {**facts, "sets": [], "warning": note}
            return
        common = common_rate(list(scored.values()), rate, known=known)
        for (place, field, stage), one in scored.items():
            # Rows most of which are leaks would set a threshold above the leaks.
            most = _NEVER if known else self._sets[place].thresholds[stage] + _ABOVE
            self._set[place, field, stage] = min(threshold(one, common), most)
        self.calibrated = {
            **facts,
            "sets": [
                {
                    "set": self._sets[place].name,
                    "field": field,
                    "stage": stage,
                    "threshold": round(self._set[place, field, stage], 4),
                    "uncalibrated": round(self._sets[place].thresholds[stage], 4),
                    "leaks_estimated": round(float((1 - one.clean).sum()), 1),
                }
                for (place, field, stage), one in scored.items()
            ],
        }
        self._warn(rate, rows.num_rows)

    def _warn(self, rate: float, rows: int) -> None:
        sets, warnings = self.calibrated["sets"], list[str]()
        named = {id(one): f"{one['set']} {one['field']} {one['stage']} {one['threshold']:.2f}" for one in sets}
        if low := [named[id(one)] for one in sets if one["threshold"] < _LOW * one["uncalibrated"]]:
            warnings.append(
                f"a false_positive_rate of {rate:g} sets low thresholds ({', '.join(low)}): the rows are little like "
                "the eval set, and most rows dropped as paraphrases will be clean; ask for a lower rate, or for none"
            )
        if many := [named[id(one)] for one in sets if one["leaks_estimated"] > _MANY * rows]:
            warnings.append(
                f"many rows look like leaks ({', '.join(many)}), so the rows say little of clean ones; name a file of "
                "clean rows with `clean`"
            )
        if warnings:
            self.calibrated["warning"] = "; ".join(warnings)

    def clean_loss(self, rows: pa.Table) -> dict[str, Any]:
        """How many of the rows are dropped, and the rate of clean ones among those that a scored stage drops: every row
        counts by how sure it is that it is clean."""
        clean, lost, copied = np.ones(rows.num_rows), np.zeros(rows.num_rows, bool), np.zeros(rows.num_rows, bool)
        for field, contents in parts(rows, self._step.fields):
            there = np.array([bool(content) for content in contents], bool)
            for place, index in enumerate(self._sets):
                copies = self._copies(index, contents)
                copied |= copies
                use = there & ~copies
                for stage in index.thresholds:
                    best, runners = self._scores(index, stage, contents, runners=True)
                    if use.sum() >= LEAST_ROWS:
                        sure = weights(best[use], runners[use], 0.01, leak=_LEAKS[stage])
                        clean[use] = np.minimum(clean[use], sure)
                    lost |= use & (best >= self.limit(place, field, stage))
        lost, clean[copied] = lost & ~copied, 0.0
        return {
            "rows": rows.num_rows,
            "dropped_as_copies": int(copied.sum()),
            "dropped_as_paraphrases": int(lost.sum()),
            "clean_among_them": round(float(clean[lost].sum()), 1),
            "rate": round(float(clean[lost].sum() / max(clean.sum(), 1.0)), 4),
        }

    def _copies(self, index: SetIndex, contents: Sequence[str]) -> NDArray[Any]:
        """Which texts a stage with fixed thresholds finds."""
        copies = np.zeros(len(contents), bool)
        for first in range(0, len(contents), _BATCH):
            texts = Texts.of(contents[first : first + _BATCH], self._lexicon)
            copies[[first + row for row in index.copies(texts)]] = True
        return copies

    def _scores(
        self, index: SetIndex, stage: str, contents: Sequence[str], *, runners: bool
    ) -> tuple[NDArray[Any], NDArray[Any]]:
        """Best scores in a stage, and the next two."""
        best, following = np.zeros(len(contents)), np.full((len(contents), 2), np.nan)
        for first in range(0, len(contents), _BATCH):
            some = contents[first : first + _BATCH]
            if stage == "meaning" and index.meaning is not None:
                likeness = index.meaning.best(some, runners=runners)
            else:
                likeness = index.likeness.best(self._lexicon.words(some), runners=runners)
            best[first : first + len(some)] = likeness.score
            if runners:
                following[first : first + len(some)] = likeness.runners
        return best, following
