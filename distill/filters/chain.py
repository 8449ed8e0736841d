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
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from distill.dataset import Fate
from distill.dataset.schema import FATE_FIELDS, VERDICTS_FIELD
from distill.filters.base import Calibrating, Filter, Persisting, Reporting, Rewriter, Verdicts

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
    columns: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """Columns that filters rewrote, of all rows."""

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
    def needs_sample(self) -> bool:
        """Whether a step waits for a sample of the rows to set its thresholds by."""
        return any(isinstance(step, Calibrating) and step.needs_sample for step in self.steps)

    def calibrate(self, rows: pa.Table) -> None:
        """Let the steps that wait for it set their thresholds by a sample of the rows, as they came."""
        for step in self.steps:
            if isinstance(step, Calibrating) and step.needs_sample:
                step.calibrate(rows)

    @property
    def calibrated(self) -> dict[str, Any]:
        """What was calibrated, by filter."""
        return {step.name: step.calibrated for step in self.steps if isinstance(step, Calibrating) and step.calibrated}

    def save(self) -> None:
        """Let steps write what later runs may use."""
        for step in self.steps:
            if isinstance(step, Persisting):
                step.save()

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
        n = rows.num_rows
        keep = np.ones(n, bool)
        names, reasons, evidence, matched = [""] * n, [""] * n, [""] * n, [""] * n
        score = np.full(n, np.nan)
        scores = np.full((n, len(self.steps)), np.nan)
        alive, left = np.arange(n), rows
        columns: dict[str, Any] = {}
        for column, step in enumerate(self.steps):
            started = self._clock()
            if isinstance(step, Rewriter):
                made = step.rewrite(_replace(rows, columns), evidence)
                columns.update(made.columns)
                evidence, verdicts = made.evidence, made.verdicts.take(alive)
                left = _take(_replace(rows, columns), alive)
            elif len(alive):
                verdicts = step.judge(left)
            else:
                continue
            self.cpu_seconds[step.name] += self._clock() - started
            scores[alive, column] = verdicts.score
            dropped = np.flatnonzero(~verdicts.keep)
            if not len(dropped):
                continue
            self._settle(step.name, verdicts, alive, dropped, names, reasons, evidence, matched, score)
            keep[alive[dropped]] = False
            alive = alive[verdicts.keep]
            left = _take(_replace(rows, columns), alive)
        return ChainVerdicts(keep, names, reasons, evidence, matched, score, self.names, scores, columns)

    def _settle(
        self,
        name: str,
        verdicts: Verdicts,
        alive: NDArray[np.int64],
        dropped: NDArray[np.int64],
        names: list[str],
        reasons: list[str],
        evidence: list[str],
        matched: list[str],
        score: NDArray[np.float64],
    ) -> None:
        for place in dropped.tolist():
            row = int(alive[place])
            names[row] = name
            reasons[row] = verdicts.reason[place]
            evidence[row] = verdicts.evidence[place]
            matched[row] = verdicts.matched_id[place]
            score[row] = verdicts.score[place]
            self.counts[name][verdicts.reason[place]] += 1


def _take(rows: pa.Table, chosen: NDArray[np.int64]) -> pa.Table:
    return rows if len(chosen) == rows.num_rows else rows.take(chosen)


def _replace(rows: pa.Table, columns: Mapping[str, Any]) -> pa.Table:
    for name, column in columns.items():
        rows = rows.set_column(rows.column_names.index(name), rows.schema.field(name), column)
    return rows
