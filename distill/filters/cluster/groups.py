"""Who may meet whom: a deduplicating step on a cluster, with the result of one machine.

A row that is compared with earlier rows sees only those that share a key with it (a digest, the values of a band). So
rows fall into groups that are linked by keys, and groups are strangers: what the step says of a group does not change
when it never hears of the others. The groups are found by a shuffle of (key, row) and judged, each in the order of its
rows, by the filter that a single machine runs. Keys have 64 bits: two values that are equal by accident would put two
groups together, which costs time and changes nothing.
"""

# Arrow's arrays are generic over types that only run time knows, and Ray's are partial.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportUnknownParameterType=false, reportMissingTypeArgument=false, reportMissingImports=false
from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from distill.filters.base import Bookkeeping, Filter, Meeting, Sharing
from distill.filters.building import FilterContext, build_chain
from distill.filters.json_lines import BATCH_ROWS
from distill.recipe import FilterStep

__all__ = ["ROW", "Step", "judged"]

I64 = NDArray[np.int64]

ROW, PART = "distill row", "distill part"
_KEY, _LONG, _FIRST = "key", "long", "first"
_PARTS = 4  # a core: parts of a shuffle differ in size


@dataclass(frozen=True, slots=True)
class Step:
    """A step that a process elsewhere can build its filter from."""

    step: FilterStep
    name: str
    folder: Path
    settings: dict[str, Any]
    """What its filter was calibrated to."""

    def build(self) -> Filter:
        context = FilterContext(folder=self.folder)
        filter_ = build_chain([self.step.model_copy(update={"name": self.name})], context).steps[0]
        if isinstance(filter_, Sharing):
            filter_.adopt(self.settings)
        return filter_


def judged(ray: Any, step: Step, tables: Iterable[tuple[I64, pa.Table]], books: Bookkeeping | None) -> pa.Table:
    """The rows that the step drops: row, reason, evidence, matched_id, score.

    Args:
        tables: the rows that are there, with their numbers from 0 on.
        books: who counts what the copies have counted.
    """
    refs = [ray.put(rows.append_column(ROW, pa.array(numbers))) for numbers, rows in tables if rows.num_rows]
    if not refs:
        return _DROPPED.empty_table()
    parts = max(1, int(ray.cluster_resources().get("CPU", 1))) * _PARTS
    data, arrow = ray.data, {"batch_format": "pyarrow"}
    keys = data.from_arrow_refs(refs).map_batches(
        _keys, batch_size=None, fn_kwargs={"step": step, "parts": parts}, **arrow
    )
    keys = keys.materialize()
    if books is not None:
        books.add_books({_LONG: int(keys.sum(_LONG) or 0)})
    links = _collected(keys.groupby(PART, num_partitions=parts).map_groups(_links, **arrow), _LINKS)
    members, groups = _groups(np.asarray(links.column(_FIRST)), np.asarray(links.column(ROW)))
    everybody = bool(getattr(step.step, "against", ()))  # a row may repeat one of another dataset
    if not everybody and not len(members):
        return _DROPPED.empty_table()
    given = {"known": ray.put((members, groups)), "everybody": everybody, "parts": parts}
    chosen = data.from_arrow_refs(refs).map_batches(_placed, batch_size=None, fn_kwargs=given, **arrow)
    parted = chosen.groupby(PART, num_partitions=parts)
    return _collected(parted.map_groups(_dropped, fn_kwargs={"step": step}, **arrow), _DROPPED)


_LINKS = pa.schema([(_FIRST, pa.int64()), (ROW, pa.int64())])
_DROPPED = pa.schema(
    [
        (ROW, pa.int64()),
        *((name, pa.string()) for name in ("reason", "evidence", "matched_id")),
        ("score", pa.float64()),
    ]
)


def _collected(dataset: Any, schema: pa.Schema) -> pa.Table:
    tables = [
        table.select(schema.names).cast(schema)
        for table in dataset.iter_batches(batch_size=None, batch_format="pyarrow")
        if table.num_rows
    ]
    return pa.concat_tables(tables) if tables else schema.empty_table()


def _groups(first: I64, second: I64) -> tuple[I64, I64]:
    """The rows that links connect, in order, and the group of each: the number of a row in it."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    members, places = np.unique(np.concatenate((first, second)), return_inverse=True)
    if not len(members):
        return members, members
    size, half = len(members), len(first)
    graph = coo_array((np.ones(half, np.int8), (places[:half], places[half:])), shape=(size, size))
    labels = np.asarray(connected_components(graph, directed=False)[1])
    return members, members[np.unique(labels, return_index=True)[1][labels]]


# What runs on the cluster


def _keys(table: pa.Table, step: Step, parts: int) -> pa.Table:
    """(row, key) of every key of every row; in `long` the number of long texts, once a block."""
    filter_ = step.build()
    numbers = np.asarray(table.column(ROW))
    owners, keys = cast("Meeting", filter_).keys(table.drop_columns([ROW]))
    books = filter_.take_books() if isinstance(filter_, Bookkeeping) else {}
    long = np.zeros(len(keys), np.int64)
    long[:1] = books.get(_LONG, 0)
    part = (keys % np.uint64(parts)).astype(np.int64)
    columns = {ROW: numbers[owners], _KEY: keys, PART: part, _LONG: long}
    return pa.table({name: pa.array(values) for name, values in columns.items()})


def _links(table: pa.Table) -> pa.Table:
    """For every key that several rows have: its first row with each of the others."""
    keys, rows = np.asarray(table.column(_KEY)), np.asarray(table.column(ROW))
    order = np.lexsort((rows, keys))
    keys, rows = keys[order], rows[order]
    new = np.concatenate(([True], keys[1:] != keys[:-1]))
    first = rows[new][np.cumsum(new) - 1]
    linked = first != rows
    return pa.table({_FIRST: pa.array(first[linked]), ROW: pa.array(rows[linked])})


def _placed(table: pa.Table, known: Any, everybody: bool, parts: int) -> pa.Table:
    """The rows that may meet another, and where their group is judged."""
    import ray

    members, groups = ray.get(known) if isinstance(known, ray.ObjectRef) else known
    numbers = np.asarray(table.column(ROW))
    places = np.minimum(np.searchsorted(members, numbers), max(len(members) - 1, 0))
    linked = members[places] == numbers if len(members) else np.zeros(len(numbers), bool)
    group = numbers.copy()
    group[linked] = groups[places[linked]]
    table = table.append_column(PART, pa.array(group % parts))
    return table if everybody else table.filter(pa.array(linked))


def _dropped(table: pa.Table, step: Step) -> pa.Table:
    """Judge whole groups, in the order of their rows."""
    filter_ = step.build()
    numbers = np.asarray(table.column(ROW))
    order = np.argsort(numbers)
    numbers, rows = numbers[order], table.drop_columns([ROW, PART]).take(order).combine_chunks()
    said: list[dict[str, Any]] = []
    for begin in range(0, len(numbers), BATCH_ROWS):
        verdicts = filter_.judge(rows.slice(begin, BATCH_ROWS))
        said += [
            {
                ROW: int(numbers[begin + row]),
                "reason": verdicts.reason[row],
                "evidence": verdicts.evidence[row],
                "matched_id": verdicts.matched_id[row],
                "score": float(verdicts.score[row]),
            }
            for row in np.flatnonzero(~verdicts.keep).tolist()
        ]
    return pa.Table.from_pylist(said, _DROPPED)
