"""A sample of a file's rows, the same whatever the batches: the rows whose places have the lowest hashes."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pyarrow as pa
import xxhash

from distill.errors import InputError
from distill.filters.reading import Batch, open_source

__all__ = ["SAMPLE", "read_rows", "sample"]

SAMPLE = 20_000
"""Rows of a sample at most."""


def sample(batches: Iterable[Batch], schema: pa.Schema, size: int = SAMPLE) -> pa.Table:
    """At most `size` of the rows, in their order. Memory holds twice as many at most, and a batch."""
    kept, ranks, held = list[pa.Table](), list[np.ndarray](), 0
    limit = np.iinfo(np.uint64).max
    for batch in batches:
        rank = np.fromiter((xxhash.xxh3_64_intdigest(b"%d" % place) for place in batch.places), np.uint64)
        chosen = np.flatnonzero(rank <= limit)
        kept.append(batch.table.take(chosen))
        ranks.append(rank[chosen])
        held += len(chosen)
        if held >= 2 * size:
            table, rank = _lowest(pa.concat_tables(kept), np.concatenate(ranks), size)
            kept, ranks, held, limit = [table], [rank], len(rank), rank.max()
    if not kept:
        return schema.empty_table()
    return _lowest(pa.concat_tables(kept), np.concatenate(ranks), size)[0]


def read_rows(path: Path, size: int = SAMPLE) -> pa.Table:
    """A sample of the rows of a JSONL, Parquet or CSV file.

    Raises:
        InputError: the file is missing, broken or empty.
    """

    def refuse(place: int, why: str) -> None:
        raise InputError(why, path=path, line=place)

    source = open_source(path, refuse, text=None)
    rows = sample(source.batches(), source.schema, size)
    if not rows.num_rows:
        raise InputError("the file holds no rows", path=path)
    return rows


def _lowest(table: pa.Table, rank: np.ndarray, size: int) -> tuple[pa.Table, np.ndarray]:
    if len(rank) <= size:
        return table, rank
    chosen = np.sort(np.argpartition(rank, size)[:size])
    return table.take(chosen), rank[chosen]
