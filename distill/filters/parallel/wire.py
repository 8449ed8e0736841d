"""What a process says of a batch, as bytes: Arrow's own format, so that numbers and texts come back as they were.

The same bytes go from process to process and into the journal of a run that may be broken off.
"""

# Arrow's arrays are generic over types that only run time knows.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportUnknownParameterType=false, reportMissingTypeArgument=false
from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.ipc

from distill.filters.base import Bookkeeping, Rewriter
from distill.filters.chain import Chain, ChainVerdicts

__all__ = ["absorb", "pack", "table_bytes", "table_of"]

ipc: Any = pyarrow.ipc
_FACTS = b"distill"
_TEXTS = ("filter", "reason", "evidence", "matched_id")


def table_bytes(table: pa.Table, *, packed: bool = False) -> bytes:
    """A table as a stream; `packed`: smaller and slower."""
    sink: Any = pa.BufferOutputStream()
    with ipc.new_stream(sink, table.schema, options=ipc.IpcWriteOptions(compression="zstd" if packed else None)) as out:
        out.write_table(table)
    return sink.getvalue().to_pybytes()


def table_of(data: bytes) -> pa.Table:
    """What `table_bytes` wrote."""
    with ipc.open_stream(data) as reader:
        return reader.read_all()


def pack(verdicts: ChainVerdicts, copies: Chain, first: int, spent: Mapping[str, float]) -> bytes:
    """What copies of the steps from `first` on said of a batch, what they entered into their books, and the CPU seconds
    of each."""
    books = {step.name: step.take_books() for step in copies.steps if isinstance(step, Bookkeeping)}
    arrays: dict[str, Any] = {"keep": pa.array(verdicts.keep), "score": pa.array(verdicts.score)}
    arrays |= {name: pa.array(getattr(verdicts, name), pa.string()) for name in _TEXTS}
    for place, scores in enumerate(verdicts.scores.T, start=first):
        arrays[f"of {place}"] = pa.array(np.ascontiguousarray(scores))
    arrays |= {f"column {name}": column for name, column in verdicts.columns.items()}
    arrays |= {f"prepared {name}": column for name, column in verdicts.prepared.items()}
    facts = orjson.dumps({"cpu": dict(spent), "books": books})
    return table_bytes(pa.table(arrays).replace_schema_metadata({_FACTS: facts}), packed=True)


def absorb(chain: Chain, verdicts: ChainVerdicts, span: range, data: bytes) -> None:
    """Enter what `pack` holds into the verdicts and the books of the chain that the copies are of."""
    table = table_of(data)
    facts = orjson.loads((table.schema.metadata or {})[_FACTS])
    keep = np.asarray(table.column("keep"))
    gone = np.flatnonzero(verdicts.keep & ~keep)
    verdicts.keep[:] = keep
    steps = [chain.steps[place] for place in span]
    if any(isinstance(step, Rewriter) for step in steps):  # it rewrites what was said of rows dropped before, too
        verdicts.evidence[:] = cast("list[str]", table.column("evidence").to_pylist())
    if len(gone):
        for name in _TEXTS:
            held, said = getattr(verdicts, name), table.column(name).to_pylist()
            for row in gone.tolist():
                held[row] = said[row]
        verdicts.score[gone] = np.asarray(table.column("score"))[gone]
    for place in span:
        verdicts.scores[:, place] = np.asarray(table.column(f"of {place}"))
    for name in table.column_names:
        kind, _, of = name.partition(" ")
        if kind in ("column", "prepared"):
            (verdicts.columns if kind == "column" else verdicts.prepared)[of] = table.column(name).combine_chunks()
    for row in gone.tolist():
        chain.counts[verdicts.filter[row]][verdicts.reason[row]] += 1
    for name, seconds in facts["cpu"].items():
        chain.cpu_seconds[name] += seconds
    for step in steps:
        if isinstance(step, Bookkeeping) and step.name in facts["books"]:
            step.add_books(facts["books"][step.name])
