"""A chain: filters in order, each judging what the ones before it kept.

Cheap steps belong first; every step has its own state, and sees rows in their order. The chain keeps the books: how
many rows fell to which filter and for what reason, and the CPU time of each step.
"""

# Arrow's arrays are generic over types that only run time knows.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportUnknownParameterType=false, reportMissingTypeArgument=false
from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from distill.dataset import Fate
from distill.dataset.schema import FATE_FIELDS, VERDICTS_FIELD
from distill.filters.base import (
    Calibrating,
    Filter,
    Persisting,
    Preparing,
    Remembering,
    Reporting,
    Rewriter,
    Verdicts,
    naming,
)

__all__ = ["Chain", "ChainVerdicts"]


@dataclass(frozen=True, slots=True)
class ChainVerdicts:
    """Fates of n rows. Lists are empty text where a row is kept."""

    keep: NDArray[np.bool_]
    """Shape (n,)."""
    filter: list[str]
    """The filter that dropped the row."""
    reason: list[str]
    evidence: list[str]
    matched_id: list[str]
    score: NDArray[np.float64]
    """Shape (n,): what the dropping filter measured; NaN where there is none."""
    names: tuple[str, ...]
    """The filters of the chain, in order."""
    scores: NDArray[np.float64]
    """Shape (n, filters): what each filter measured; NaN where there is none or the row did not reach it."""
    columns: dict[str, Any] = field(default_factory=dict[str, Any])
    """Columns that filters rewrote, of all rows."""
    prepared: dict[str, Any] = field(default_factory=dict[str, Any])
    """What was worked out for filters still to come, of all rows, by filter (see `base.Preparing`)."""
    numbers: dict[str, NDArray[np.int64]] = field(default_factory=dict[str, NDArray[np.int64]])
    """Shape (n,) each: the numbers under which filters remember rows (see `base.Verdicts`), by filter."""

    def rewritten(self, rows: pa.Table) -> pa.Table:
        """The judged rows with what filters rewrote in them."""
        return _replace(rows, self.columns)

    @property
    def fates(self) -> list[Fate | None]:
        """The fate of every row; None for a kept one."""
        return [self.fate(row) for row in range(len(self.keep))]

    def fate(self, row: int) -> Fate | None:
        """The fate of one row; None for a kept one."""
        if self.keep[row]:
            return None
        score = float(self.score[row])
        shown = None if np.isnan(score) else score
        return Fate(self.filter[row], self.reason[row], self.evidence[row], self.matched_id[row], shown)

    def surplus(self, row: int, filter: str, reason: str, evidence: str = "") -> Fate:
        """Drop a row that the filters kept, for a reason of the caller's."""
        self.keep[row] = False
        self.filter[row], self.reason[row], self.evidence[row] = filter, reason, evidence
        return Fate(filter, reason, evidence)

    def kept_table(self, rows: pa.Table, chosen: Sequence[int] | None = None) -> pa.Table:
        """The kept rows (or the chosen ones of them), with `verdicts`: every filter and what it measured."""
        places = np.flatnonzero(self.keep) if chosen is None else np.asarray(chosen, np.int64)
        flat = self.scores[places].ravel()
        offsets = [count * len(self.names) for count in range(len(places) + 1)]
        entry = VERDICTS_FIELD.type.value_type
        entries = pa.StructArray.from_arrays(
            [pa.array(list(self.names) * len(places), pa.string()), pa.array(flat, pa.float64(), mask=np.isnan(flat))],
            fields=[entry.field(0), entry.field(1)],
        )
        verdicts = pa.ListArray.from_arrays(offsets, entries).cast(VERDICTS_FIELD.type)
        return _take(self.rewritten(rows), places).append_column(VERDICTS_FIELD, verdicts)

    def rejected_table(
        self, rows: pa.Table, chosen: Sequence[int] | None = None, *, names: Sequence[str] = ()
    ) -> pa.Table:
        """The dropped rows (or the chosen ones of them), with filter, reason, evidence, matched_id and score; `names`
        calls these five columns otherwise."""
        places = np.flatnonzero(~self.keep) if chosen is None else np.asarray(chosen, np.int64)
        scores = self.score[places]
        columns = [
            *(
                pa.array([values[row] for row in places.tolist()], pa.string())
                for values in (self.filter, self.reason, self.evidence, self.matched_id)
            ),
            pa.array(scores, pa.float64(), mask=np.isnan(scores)),
        ]
        table = _take(self.rewritten(rows), places)
        for name, kind, values in zip(names or [f.name for f in FATE_FIELDS], FATE_FIELDS, columns, strict=True):
            table = table.append_column(kind.with_name(name), values)
        return table


class Chain:
    """Runs filters over batches; results do not depend on where the batches end."""

    def __init__(self, filters: Sequence[Filter], *, cpu_clock: Callable[[], float] = time.thread_time) -> None:
        self.steps = tuple(filters)
        self.names = tuple(step.name for step in filters)
        self.counts: dict[str, Counter[str]] = {name: Counter() for name in self.names}
        """Rows dropped so far, by filter and reason."""
        self.cpu_seconds: dict[str, float] = dict.fromkeys(self.names, 0.0)
        """CPU time so far, by filter, of the threads that called `judge`."""
        self._clock = cpu_clock
        self.rewriters = tuple(step for step in self.steps if isinstance(step, Rewriter))
        """The filters that change rows."""

    @property
    def masked(self) -> dict[str, int]:
        """Values that filters replaced so far, by kind."""
        total: Counter[str] = sum((step.counts for step in self.rewriters), Counter())
        return dict(sorted(total.items()))

    @property
    def remembered(self) -> dict[str, int]:
        """Bytes that filters hold of the rows they have kept, by filter."""
        held = {step.name: step.nbytes for step in self.steps if isinstance(step, Remembering)}
        return {name: size for name, size in held.items() if size}

    @property
    def needs_sample(self) -> bool:
        """Whether a step waits for a sample of the rows to set its thresholds by."""
        return any(isinstance(step, Calibrating) and step.needs_sample for step in self.steps)

    def calibrate(self, rows: pa.Table) -> None:
        """Let the steps that wait for it set their thresholds by a sample of the rows, as they came."""
        for step in self.steps:
            if isinstance(step, Calibrating) and step.needs_sample:
                with naming(step.name):
                    step.calibrate(rows)

    @property
    def calibrated(self) -> dict[str, Any]:
        """What was calibrated, by filter."""
        return {step.name: step.calibrated for step in self.steps if isinstance(step, Calibrating) and step.calibrated}

    def settle(self, verdicts: ChainVerdicts) -> None:
        """Tell the steps that hand on what they keep which rows were dropped after them; called when nothing more is
        decided about the rows."""
        self.forget({name: numbers[~verdicts.keep] for name, numbers in verdicts.numbers.items()})

    def forget(self, numbers: Mapping[str, NDArray[np.int64]]) -> None:
        """Let steps not hand on rows, by the numbers under which they remember them; -1 stands for none."""
        for step in self.steps:
            if isinstance(step, Persisting) and step.name in numbers:
                step.forget(numbers[step.name][numbers[step.name] >= 0])

    def save(self, folder: Path | None = None) -> None:
        """Let steps write what later runs may use: to the files they name, or into `folder`."""
        for step in self.steps:
            if isinstance(step, Persisting):
                step.save(folder)

    def reports(self) -> dict[str, dict[str, Any]]:
        """What filters have to tell beside their verdicts, by filter."""
        told = {step.name: step.report(self.hide) for step in self.steps if isinstance(step, Reporting)}
        return {name: report for name, report in told.items() if report}

    def hide(self, text: str) -> str:
        """A text of no row (a failure's raw answer), as the rewriting filters leave it."""
        for step in self.rewriters:
            text = step.hide(text)
        return text

    def judge(self, rows: pa.Table) -> ChainVerdicts:
        """The fate of every row, in order."""
        verdicts = self.start(rows.num_rows)
        self.run(rows, verdicts, range(len(self.steps)))
        return verdicts

    def start(self, n: int) -> ChainVerdicts:
        """Of n rows that no step has judged yet."""
        return ChainVerdicts(
            keep=np.ones(n, bool),
            filter=[""] * n,
            reason=[""] * n,
            evidence=[""] * n,
            matched_id=[""] * n,
            score=np.full(n, np.nan),
            names=self.names,
            scores=np.full((n, len(self.steps)), np.nan),
        )

    def run(self, rows: pa.Table, verdicts: ChainVerdicts, span: range) -> None:
        """Let the steps of `span` judge what the ones before them kept, and enter what they say into `verdicts`."""
        alive, columns = np.flatnonzero(verdicts.keep), verdicts.columns
        left = _take(_replace(rows, columns), alive)
        for place in span:
            step, started = self.steps[place], self._clock()
            with naming(step.name):
                if isinstance(step, Rewriter):
                    made = step.rewrite(_replace(rows, columns), verdicts.evidence)
                    columns.update(made.columns)
                    verdicts.evidence[:] = made.evidence
                    said = made.verdicts.take(alive)
                    left = _take(_replace(rows, columns), alive)
                elif not len(alive):
                    continue
                elif step.name in verdicts.prepared and isinstance(step, Preparing):
                    said = step.judge_prepared(left, verdicts.prepared[step.name].take(pa.array(alive)))
                else:
                    said = step.judge(left)
            self.cpu_seconds[step.name] += self._clock() - started
            self.enter(place, verdicts, said)
            if not said.keep.all():
                alive = alive[said.keep]
                left = _take(_replace(rows, columns), alive)

    def enter(self, place: int, verdicts: ChainVerdicts, said: Verdicts) -> None:
        """Enter what the step at `place` said of the rows that were left."""
        name, alive = self.names[place], np.flatnonzero(verdicts.keep)
        verdicts.scores[alive, place] = said.score
        if said.numbers is not None:
            verdicts.numbers[name] = np.full(len(verdicts.keep), -1, np.int64)
            verdicts.numbers[name][alive] = said.numbers
        for entry in np.flatnonzero(~said.keep).tolist():
            row = int(alive[entry])
            verdicts.keep[row] = False
            verdicts.filter[row] = name
            verdicts.reason[row] = said.reason[entry]
            verdicts.evidence[row] = said.evidence[entry]
            verdicts.matched_id[row] = said.matched_id[entry]
            verdicts.score[row] = said.score[entry]
            self.counts[name][said.reason[entry]] += 1


def _take(rows: pa.Table, chosen: NDArray[np.int64]) -> pa.Table:
    return rows if len(chosen) == rows.num_rows else rows.take(chosen)


def _replace(rows: pa.Table, columns: Mapping[str, Any]) -> pa.Table:
    for name, column in columns.items():
        rows = rows.set_column(rows.column_names.index(name), rows.schema.field(name), column)
    return rows
