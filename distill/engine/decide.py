"""From outcomes to fates: filters judge in slot order, quotas accept, and every row is written with its proof."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import TracebackType

import pyarrow as pa

from distill.dataset import Failure, Row, RowWriter, failures_to_table, rows_to_table
from distill.dataset.schema import FAILED_SCHEMA, KEPT_SCHEMA, REJECTED_SCHEMA
from distill.engine.accounting import Account
from distill.filters import Chain, ChainVerdicts
from distill.filters.near.survivors import Declaring, judge_in_order
from distill.teachers import Message

__all__ = ["Decider", "Outcome"]

Outcome = tuple[tuple[str, ...], list[Row | Failure]]
"""The leaf of a slot, and what the slot made."""

_QUOTA = "quota"
_TEXTS = ("messages", "reasoning", "answer", "chosen", "rejected")


class Decider:
    """Gives every row its one fate. Call `decide` with outcomes in slot order; state grows with what is kept only
    inside the filters' own indexes."""

    def __init__(
        self,
        chain: Chain,
        account: Account,
        folder: Path,
        *,
        target: int,
        by_leaf: bool,
        keep: Declaring | None = None,
    ) -> None:
        """Args:
        keep: the step that declares which row of a group stays, where it is not the first.
        """
        self._chain = chain
        self._judge = chain.judge if keep is None else partial(judge_in_order, chain, step=keep)
        self._account = account
        self._target = target
        self._by_leaf = by_leaf
        self._files = contextlib.ExitStack()
        self._kept = RowWriter(folder / "rows.parquet", KEPT_SCHEMA)
        self._rejected = RowWriter(folder / "rejected.parquet", REJECTED_SCHEMA)
        self._failed = RowWriter(folder / "failed.parquet", FAILED_SCHEMA)

    def __enter__(self) -> Decider:
        for writer in (self._kept, self._rejected, self._failed):
            self._files.enter_context(writer)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._files.__exit__(kind, error, trace)

    def discard(self) -> None:
        """Leave the files as they were."""
        for writer in (self._kept, self._rejected, self._failed):
            writer.abort()
        self._files.pop_all()

    async def decide(self, outcomes: list[Outcome]) -> list[Row]:
        """Judge, count and write; returns the kept rows.

        Raises:
            Halted, RunError: a filter asks a teacher, and the run is stopping; nothing of these outcomes was counted.
        """
        rows = [item for _, items in outcomes for item in items if isinstance(item, Row)]
        failures = [item for _, items in outcomes for item in items if isinstance(item, Failure)]
        table = rows_to_table(rows)
        # Judging is pure computation of milliseconds to seconds: off the loop, so that requests go on.
        verdicts = await asyncio.to_thread(self._judge, table) if rows and self._chain.steps else None
        if self._chain.rewriters:
            hide = self._chain.hide
            failures = [replace(item, raw=hide(item.raw), message=hide(item.message)) for item in failures]
        for failure in failures:
            self._account.fail(failure.slot.leaf, failure.failure.value, failure.cost)
        if failures:
            self._failed.write(failures_to_table(failures))
        if not rows:
            return []
        verdicts = verdicts or self._chain.judge(table)
        return self._settle(rows, table, verdicts)

    def _settle(self, rows: list[Row], table: pa.Table, verdicts: ChainVerdicts) -> list[Row]:
        account = self._account
        kept: list[Row] = []
        for position, row in enumerate(rows):
            if verdicts.keep[position] and not self._wanted(row):
                verdicts.surplus(position, _QUOTA, "surplus", "the quota was full")
            if verdicts.keep[position]:
                account.keep(row.slot.leaf, row.cost)
                kept.append(_as_written(row, verdicts, position))
            else:
                account.reject(row.slot.leaf, verdicts.filter[position], verdicts.reason[position], row.cost)
        self._chain.settle(verdicts)
        self._kept.write(verdicts.kept_table(table))
        if len(kept) < len(rows):
            self._rejected.write(verdicts.rejected_table(table))
        return kept

    def _wanted(self, row: Row) -> bool:
        if self._by_leaf:
            return self._account.leaves[row.slot.leaf].missing > 0
        return self._account.kept < self._target


def _as_written(row: Row, verdicts: ChainVerdicts, position: int) -> Row:
    """The row with what filters rewrote in it: nobody is handed what no file may hold."""
    changed = {name: column[position].as_py() for name, column in verdicts.columns.items()}
    if "messages" in changed:
        changed["messages"] = tuple(Message(turn["role"], turn["content"]) for turn in changed["messages"])
    return replace(row, **{name: changed[name] for name in _TEXTS if name in changed})
