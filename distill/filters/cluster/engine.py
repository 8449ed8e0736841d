"""Batches through a chain on a Ray cluster: the same filters, and row for row what one machine says.

    judged by themselves    `map_batches`: length, language, personal data, decontamination, … An actor builds copies of
                            the filters once. The items of eval sets are broadcast; other files that steps name must
                            be readable on every node
    exact, minhash          a shuffle by digest and by band, and keep-first in the order of the rows among those that
                            may meet (see `groups`)
    semantic, custom        one place, this process, in order

Rows are held by the cluster's object store, which spills them to disk. This process holds the verdicts and the links
between rows that share a value: some hundred bytes a row.
"""

# Arrow's arrays are generic over types that only run time knows, and Ray's are partial.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportUnknownParameterType=false, reportMissingTypeArgument=false, reportMissingImports=false
from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any, TypeVar, cast

import numpy as np
import pyarrow as pa

from distill.errors import InputError, RunError
from distill.filters.base import Bookkeeping, Meeting, Rewriter, Verdicts
from distill.filters.chain import Chain, ChainVerdicts
from distill.filters.cluster.groups import ROW, Step, judged
from distill.filters.decontamination.evalsets import load_items
from distill.filters.parallel.copies import Copies, Orders
from distill.filters.parallel.segments import Segment, cut
from distill.filters.parallel.stream import Item
from distill.filters.parallel.wire import absorb
from distill.recipe import DecontaminateStep, ExactStep, FilterStep, MinHashStep

__all__ = ["Cluster", "connect"]

T = TypeVar("T")

_BATCH, _KEEP, _EVIDENCE, _SAID = "distill batch", "distill keep", "distill evidence", "said"


class Cluster:
    """One way through a chain, as `parallel.stream.Stream`."""

    def __init__(self, chain: Chain, steps: Sequence[FilterStep], orders: Orders) -> None:
        """
        Raises:
            InputError: Ray is not installed, or a step needs all rows in one place.
            RunError: there is no cluster.
        """
        for step in steps:
            if isinstance(step, ExactStep | MinHashStep) and (step.index or step.keep != "first"):
                field = "index" if step.index else "keep"
                raise InputError("can be done on one machine only", field=field, hint="leave out --engine ray")
        sets = {
            name: tuple(load_items(step.against or orders.eval_sets, orders.folder))
            for name, step in zip(chain.names, steps, strict=True)
            if isinstance(step, DecontaminateStep)
        }
        self._chain, self._steps, self._orders = chain, steps, replace(orders, items=sets)
        self._ray = connect()

    def judge(self, batches: Iterable[tuple[T, pa.Table]]) -> Iterator[Item[T]]:
        """Every batch with its verdicts, in order. All rows are read before the first is judged."""
        ray, chain = self._ray, self._chain
        held, verdicts = list[tuple[Any, Any]](), list[ChainVerdicts]()
        for of, rows in batches:
            held.append((ray.put(of), ray.put(rows)))
            verdicts.append(chain.start(rows.num_rows))
        refs = [rows for _, rows in held]
        for segment in cut(self._steps, chain) if refs else ():
            if segment.anywhere and not segment.at_home:
                self._anywhere(segment, refs, verdicts)
            else:
                for place in segment.span:
                    self._in_order(place, refs, verdicts)
        for (of, rows), said in zip(held, verdicts, strict=True):
            yield Item(ray.get(of), ray.get(rows), said)

    def _anywhere(self, segment: Segment, refs: list[Any], verdicts: list[ChainVerdicts]) -> None:
        ray, chain = self._ray, self._chain
        rewrites = any(isinstance(chain.steps[place], Rewriter) for place in segment.span)
        tables: list[Any] = []
        for number, (ref, said) in enumerate(zip(refs, verdicts, strict=True)):
            rows = said.rewritten(ray.get(ref))
            rows = rows.append_column(_BATCH, pa.array(np.full(rows.num_rows, number)))
            rows = rows.append_column(_KEEP, pa.array(said.keep))
            tables.append(ray.put(rows.append_column(_EVIDENCE, pa.array(said.evidence, pa.string()))))
        cores = max(1, int(ray.cluster_resources().get("CPU", 1)))
        made = ray.data.from_arrow_refs(tables).map_batches(
            _Judge,
            fn_constructor_args=([ray.put(self._orders)], segment, rewrites),
            compute=ray.data.ActorPoolStrategy(min_size=1, max_size=cores),
            batch_size=None,
            batch_format="pyarrow",
        )
        found: dict[int, bytes] = {}
        for table in made.iter_batches(batch_size=None, batch_format="pyarrow"):
            found.update(zip(table.column(_BATCH).to_pylist(), table.column(_SAID).to_pylist(), strict=True))
        for number, said in enumerate(verdicts):
            absorb(chain, said, segment.span, found[number])

    def _in_order(self, place: int, refs: list[Any], verdicts: list[ChainVerdicts]) -> None:
        ray, chain = self._ray, self._chain
        step = chain.steps[place]
        if not isinstance(step, Meeting):
            for ref, said in zip(refs, verdicts, strict=True):
                chain.run(ray.get(ref), said, range(place, place + 1))
            return
        orders = self._orders
        copy = Step(self._steps[place], step.name, orders.folder, orders.settings.get(step.name, {}))
        first = np.cumsum([0, *(len(said.keep) for said in verdicts)])

        def alive() -> Iterator[tuple[Any, pa.Table]]:
            for begin, ref, said in zip(first[:-1], refs, verdicts, strict=True):
                rows = np.flatnonzero(said.keep)
                yield begin + rows, said.rewritten(ray.get(ref)).take(rows)

        dropped = judged(ray, copy, alive(), step if isinstance(step, Bookkeeping) else None)
        dropped = dropped.sort_by(ROW)
        numbers = np.asarray(dropped.column(ROW))
        for begin, end, said in zip(first[:-1], first[1:], verdicts, strict=True):
            some = slice(*np.searchsorted(numbers, (begin, end)).tolist())
            rows, told = np.flatnonzero(said.keep), Verdicts.kept(int(said.keep.sum()))
            entries = dropped.slice(some.start, some.stop - some.start).to_pylist()
            for row, entry in zip(np.searchsorted(rows, numbers[some] - begin).tolist(), entries, strict=True):
                told.drop(row, entry["reason"], entry["evidence"], entry["matched_id"], entry["score"])
            chain.enter(place, said, told)


class _Judge:
    """An actor that holds copies of filters."""

    def __init__(self, orders: list[Any], segment: Segment, rewrites: bool) -> None:
        import ray

        self._segment, self._rewrites, self._copies = segment, rewrites, Copies(ray.get(orders[0]))

    def __call__(self, table: pa.Table) -> pa.Table:
        keep = np.asarray(table.column(_KEEP)).tobytes()
        evidence = cast("list[str]", table.column(_EVIDENCE).to_pylist()) if self._rewrites else None
        number = table.column(_BATCH)[0]
        rows = table.drop_columns([_BATCH, _KEEP, _EVIDENCE])
        said = self._copies.judge(self._segment, rows, keep, evidence)
        return pa.table({_BATCH: [number.as_py()], _SAID: pa.array([said], pa.large_binary())})


def connect() -> Any:
    """Ray, connected to the cluster that RAY_ADDRESS names, or to one of this machine."""
    try:
        import ray
        import ray.data
    except ImportError:
        hint = "install it: pip install 'distill[ray]'"
        raise InputError("the library ray is not installed", field="--engine ray", hint=hint) from None
    if not ray.is_initialized():
        try:
            ray.init(log_to_driver=False, logging_level=logging.WARNING, include_dashboard=False)
        except (ConnectionError, OSError, RuntimeError, ValueError) as error:
            hint = "look at RAY_ADDRESS, or unset it for a cluster of this machine alone"
            raise RunError(f"there is no Ray cluster: {error}", hint=hint) from None
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.execution_options.preserve_order = True
    return ray
