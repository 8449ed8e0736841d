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
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from distill.dataset import Fate
from distill.dataset.schema import FATE_FIELDS, VERDICTS_FIELD
from distill.errors import InputError
from distill.filters.base import Filter, Verdicts
from distill.recipe import (
    EvalSet,
    ExactStep,
    FilterStep,
    LengthStep,
    MinHashStep,
    RefusalStep,
    SchemaStep,
    TruncationStep,
)

__all__ = ["Chain", "ChainVerdicts", "FilterContext", "build_chain"]


@dataclass(frozen=True, slots=True)
class FilterContext:
    """What steps may need beside their own section."""

    folder: Path = field(default_factory=Path.cwd)
    """Relative paths start here."""
    seeds: Sequence[tuple[str, str]] = ()
    """(id, text) of the examples that rows must not repeat."""
    eval_sets: Sequence[EvalSet] = ()
    """Sets for `decontaminate` steps that name none."""


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
        return _take(rows, places).append_column(VERDICTS_FIELD, verdicts)

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
        table = _take(rows, places)
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

    def judge(self, rows: pa.Table) -> ChainVerdicts:
        """The fate of every row, in order."""
        n = rows.num_rows
        keep = np.ones(n, bool)
        names, reasons, evidence, matched = [""] * n, [""] * n, [""] * n, [""] * n
        score = np.full(n, np.nan)
        scores = np.full((n, len(self.steps)), np.nan)
        alive, left = np.arange(n), rows
        for column, step in enumerate(self.steps):
            if not len(alive):
                break
            started = self._clock()
            verdicts = step.judge(left)
            self.cpu_seconds[step.name] += self._clock() - started
            scores[alive, column] = verdicts.score
            dropped = np.flatnonzero(~verdicts.keep)
            if not len(dropped):
                continue
            self._settle(step.name, verdicts, alive, dropped, names, reasons, evidence, matched, score)
            keep[alive[dropped]] = False
            alive = alive[verdicts.keep]
            left = _take(rows, alive)
        return ChainVerdicts(keep, names, reasons, evidence, matched, score, self.names, scores)

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


def build_chain(steps: Sequence[FilterStep], context: FilterContext | None = None) -> Chain:
    """The filters that `steps` declare, with fresh state.

    Raises:
        InputError: a file that a step names is missing or wrong, or two steps have the same name.
    """
    context = context or FilterContext()
    return Chain([_build(step, name, context) for step, name in zip(steps, _names(steps), strict=True)])


def _build(step: FilterStep, name: str, context: FilterContext) -> Filter:
    # Imported where they are used: a chain loads the libraries of its own steps, not of all there are.
    if isinstance(step, ExactStep):
        from distill.filters.exact import ExactFilter

        return ExactFilter(step, name, seeds=context.seeds)
    if isinstance(step, MinHashStep):
        from distill.filters.minhash import MinHashFilter

        return MinHashFilter(step, name, seeds=context.seeds)
    if isinstance(step, SchemaStep):
        from distill.filters.schema import SchemaFilter

        return SchemaFilter(step, name, folder=context.folder)
    if isinstance(step, LengthStep):
        from distill.filters.length import LengthFilter

        return LengthFilter(step, name)
    if isinstance(step, RefusalStep):
        from distill.filters.refusal import RefusalFilter

        return RefusalFilter(step, name)
    if isinstance(step, TruncationStep):
        from distill.filters.truncation import TruncationFilter

        return TruncationFilter(step, name)
    from distill.filters.decontaminate import DecontaminateFilter
    from distill.filters.evalsets import load_items

    return DecontaminateFilter(step, name, items=load_items(step.against or context.eval_sets, context.folder))


def _names(steps: Sequence[FilterStep]) -> list[str]:
    """One name a step: its own, else its kind, numbered from the second of a kind on."""
    names: list[str] = [step.name for step in steps if step.name is not None]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise InputError(f"two steps have the name {twice}", field="filters")
    taken, result = set(names), list[str]()
    for step in steps:
        name, number = step.name or step.kind, 1
        while step.name is None and name in taken:
            number += 1
            name = f"{step.kind}_{number}"
        taken.add(name)
        result.append(name)
    return result


def _take(rows: pa.Table, chosen: NDArray[np.int64]) -> pa.Table:
    return rows if len(chosen) == rows.num_rows else rows.take(chosen)
