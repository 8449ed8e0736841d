"""Which row of a group of duplicates survives, where it is not the first.

Deduplicating filters keep what comes first. For another survivor the rows are judged in another order: the longest or
the best-scored first, rows that are equal in this in the order of the file. That needs all rows at once, so the file
is held in memory; what is written stands in the order of the file again. In a generation the rows of a round are held:
those of earlier rounds were counted and handed out, and stay whatever comes.
"""

# Arrow's arrays are generic over types that only run time knows.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportUnknownParameterType=false, reportMissingTypeArgument=false
from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute
from numpy.typing import NDArray

from distill.errors import InputError
from distill.filters.chain import Chain, ChainVerdicts
from distill.filters.reading import Batch
from distill.filters.text import texts
from distill.recipe import ExactStep, FilterStep, MinHashStep

__all__ = ["Declaring", "declared", "judge_in_order", "rank", "whole"]

pc: Any = pyarrow.compute

Declaring = ExactStep | MinHashStep


def declared(steps: Sequence[FilterStep]) -> Declaring | None:
    """The step that declares another survivor than the first row.

    Raises:
        InputError: two steps declare different ones.
    """
    found = [step for step in steps if isinstance(step, Declaring) and step.keep != "first"]
    if len({(step.keep, step.score) for step in found}) > 1:
        raise InputError("steps of one chain must keep the same row of a group", field="keep")
    return found[0] if found else None


def whole(batches: Iterable[Batch]) -> Iterator[Batch]:
    """All batches as one; none where there is none."""
    held = list(batches)
    if not held:
        return
    originals = [row for batch in held for row in batch.originals or ()]
    yield Batch(
        pa.concat_tables([batch.table for batch in held]).combine_chunks(),
        [place for batch in held for place in batch.places],
        None if held[0].originals is None else originals,
    )


def judge_in_order(chain: Chain, rows: pa.Table, step: Declaring) -> ChainVerdicts:
    """The fate of every row, in the order of `rows`, judged in the order that `step` declares.

    Raises:
        InputError: there is no column of scores.
    """
    order = np.argsort(-rank(rows, step), kind="stable")
    verdicts = chain.judge(rows.take(order))
    back = np.empty(len(order), np.int64)
    back[order] = np.arange(len(order))
    places: list[int] = back.tolist()
    return ChainVerdicts(
        keep=verdicts.keep[back],
        filter=[verdicts.filter[place] for place in places],
        reason=[verdicts.reason[place] for place in places],
        evidence=[verdicts.evidence[place] for place in places],
        matched_id=[verdicts.matched_id[place] for place in places],
        score=verdicts.score[back],
        names=verdicts.names,
        scores=verdicts.scores[back],
        columns={name: column.take(pa.array(back)) for name, column in verdicts.columns.items()},
        numbers={name: numbers[back] for name, numbers in verdicts.numbers.items()},
    )


def _scores(rows: pa.Table, score: str) -> Any:
    """The column; `scores.judge` is what a column of maps has under a name."""
    column, _, member = score.partition(".")
    if score in rows.column_names:
        return rows.column(score)
    if member and column in rows.column_names and pa.types.is_map(rows.schema.field(column).type):
        return pc.map_lookup(rows.column(column), pa.scalar(member), "first")
    have = ", ".join(rows.column_names)
    raise InputError(f"no column {score}", field="score", hint=f"the rows have: {have}")


def rank(rows: pa.Table, step: Declaring) -> NDArray[np.float64]:
    """Higher stays. A row without a score ranks last.

    Raises:
        InputError: there is no such column, or it holds no numbers.
    """
    if step.keep == "longest":
        return np.fromiter(map(len, texts(rows, step.fields)), np.float64, rows.num_rows)
    score = step.score or ""
    column = _scores(rows, score)
    if not (pa.types.is_integer(column.type) or pa.types.is_floating(column.type)):
        raise InputError(f"column {score} holds {column.type}, not numbers", field="score")
    return np.nan_to_num(np.asarray(pc.fill_null(pc.cast(column, pa.float64()), -np.inf)), nan=-np.inf)
