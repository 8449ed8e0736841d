"""How many processes a run is worth, where nobody says.

Further processes load libraries and build filters before they do anything: one to two CPU seconds in all, whatever
their number, during which this one does not go on much. They pay where they take more than that off it. What they would
take is reckoned from the size of the file and the figures of `cost`.
"""

# Arrow's arrays are generic over types that only run time knows.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from distill.filters.cost import COST
from distill.filters.near.survivors import declared
from distill.filters.parallel.segments import goes_elsewhere
from distill.io.host import cores
from distill.recipe import DecontaminateStep, EvalSet, FilterStep

__all__ = ["fitting"]

_START = 1.5
"""CPU seconds until the workers are there."""
_PAYS = 2.0
"""Times that, and they are started."""
_ROW_BYTES = 800
"""Of the rows that `COST` was measured on, as JSON."""
_READ = 25
"""CPU microseconds to read such a row of JSON, twice."""
_PIECE = 1 << 20


def fitting(source: Path, steps: Sequence[FilterStep], eval_sets: Sequence[EvalSet] = ()) -> int:
    """Processes for a file and a chain: one, or one a core."""
    most = cores()
    if most < 2:
        return 1
    rows, size, lines = _rows(source)
    each = float(_READ if lines else 0)
    if declared(steps) is None:
        each += sum(_cost(step, eval_sets) for step in steps if goes_elsewhere(step))
    saved = rows * max(size / _ROW_BYTES, 0.1) * each * 1e-6 * (1 - 1 / most)
    return most if saved > _PAYS * _START else 1


def _cost(step: FilterStep, eval_sets: Sequence[EvalSet]) -> int:
    if isinstance(step, DecontaminateStep) and not (step.against or eval_sets):
        return 0  # nothing to look for
    return COST.get(step.kind, 0)


def _rows(source: Path) -> tuple[float, float, bool]:
    """Rows, bytes of one, and whether they are lines of JSON; nothing where the file cannot be read: that is told
    later."""
    kind = source.suffix.lower()
    try:
        if kind in (".parquet", ".pq"):
            facts = pq.read_metadata(source)
            total = sum(facts.row_group(number).total_byte_size for number in range(facts.num_row_groups))
            return facts.num_rows, total / max(facts.num_rows, 1), False
        with source.open("rb") as file:
            some = file.read(_PIECE)
        size = len(some) / max(some.count(b"\n"), 1)
        return source.stat().st_size / max(size, 1), size, kind not in (".csv", ".tsv")
    except (OSError, pa.ArrowInvalid):
        return 0, 0, False
