"""Copies of filters that judge rows by themselves, made where the rows are.

A copy is built from the step that declares it, takes over what the filter at home was calibrated to, and hands its
books back with every batch.
"""

# Arrow's arrays are generic over types that only run time knows.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportUnknownParameterType=false, reportMissingTypeArgument=false
from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from distill.errors import DistillError
from distill.filters.base import Filter, Preparing, Sharing
from distill.filters.building import FilterContext, build_chain, names_of
from distill.filters.chain import Chain
from distill.filters.decontamination.evalsets import EvalItem
from distill.filters.parallel.segments import Segment, copy_of, goes_elsewhere
from distill.filters.parallel.wire import pack
from distill.recipe import DecontaminateStep, EvalSet, FilterStep

__all__ = ["Copies", "Orders"]


@dataclass(frozen=True, slots=True)
class Orders:
    """What a process must know to build copies; it can be sent."""

    steps: tuple[FilterStep, ...]
    names: tuple[str, ...]
    folder: Path
    eval_sets: tuple[EvalSet, ...] = ()
    settings: dict[str, dict[str, Any]] = field(default_factory=dict[str, dict[str, Any]])
    """What filters were calibrated to, by name."""
    items: dict[str, tuple[EvalItem, ...]] = field(default_factory=dict[str, tuple[EvalItem, ...]])
    """Items of eval sets, by the name of the filter that looks for them, where they are sent and not read again."""

    @classmethod
    def early(cls, steps: Sequence[FilterStep], context: FilterContext) -> Orders:
        """For copies of filters that are not built yet, and not calibrated.

        Raises:
            InputError: two steps have the same name.
        """
        return cls(tuple(steps), tuple(names_of(steps)), context.folder, tuple(context.eval_sets))

    @classmethod
    def of(cls, steps: Sequence[FilterStep], chain: Chain, context: FilterContext) -> Orders:
        """For copies of the filters of a chain, as they are calibrated now."""
        settings = {step.name: step.settings() for step in chain.steps if isinstance(step, Sharing)}
        return cls(tuple(steps), chain.names, context.folder, tuple(context.eval_sets), settings)


class Copies:
    """The copies that one process holds, each built when it is first needed."""

    def __init__(self, orders: Orders, at_home: Chain | None = None) -> None:
        """Args:
        at_home: the chain itself, where its own filters are to judge.
        """
        self._orders, self._at_home = orders, at_home
        self._built: dict[int, Filter] = {}

    def prepare(self) -> None:
        """Build what a run will ask for, as far as that can be told before it begins. What cannot be built is told when
        it is asked for."""
        for place, step in enumerate(self._orders.steps):
            if goes_elsewhere(step):
                with contextlib.suppress(DistillError):
                    self._copy(place)

    def renew(self, orders: Orders) -> bool:
        """Take over what the filters at home are calibrated to now; False where copies of others are wanted."""
        if replace(orders, settings=self._orders.settings) != self._orders:
            return False
        self._orders = orders
        for copy in self._built.values():
            self._adopt(copy)
        return True

    def judge(self, segment: Segment, rows: pa.Table, keep: bytes, evidence: list[str] | None) -> bytes:
        """What a segment says of a batch, packed (see `wire`).

        Args:
            keep: one byte a row: whether it is still there.
            evidence: what was said of rows that are not; None where no step of the segment asks.
        """
        chain = Chain([self._copy(place) for place in segment.span])
        verdicts = chain.start(rows.num_rows)
        verdicts.keep[:] = np.frombuffer(keep, bool)
        if evidence is not None:
            verdicts.evidence[:] = evidence
        chain.run(rows, verdicts, range(len(chain.steps)))
        spent = dict(chain.cpu_seconds)
        for place in segment.prepares:
            step, started = self._copy(place), time.thread_time()
            assert isinstance(step, Preparing)  # noqa: S101  # what `cut` looked for
            verdicts.prepared[step.name] = step.prepare(verdicts.rewritten(rows))
            spent[step.name] = time.thread_time() - started
        return pack(verdicts, chain, segment.span.start, spent)

    def _copy(self, place: int) -> Filter:
        if self._at_home is not None:
            return self._at_home.steps[place]
        if place not in self._built:
            orders = self._orders
            step = copy_of(orders.steps[place]).model_copy(update={"name": orders.names[place]})
            self._built[place] = self._build(step, orders.items.get(orders.names[place]))
            self._adopt(self._built[place])
        return self._built[place]

    def _adopt(self, copy: Filter) -> None:
        if isinstance(copy, Sharing) and copy.name in self._orders.settings:
            copy.adopt(self._orders.settings[copy.name])

    def _build(self, step: FilterStep, items: Sequence[EvalItem] | None) -> Filter:
        if isinstance(step, DecontaminateStep) and items is not None:
            from distill.filters.decontamination.decontaminate import DecontaminateFilter

            return DecontaminateFilter(step, step.name or step.kind, items=items)
        context = FilterContext(folder=self._orders.folder, eval_sets=self._orders.eval_sets)
        return build_chain([step], context).steps[0]
