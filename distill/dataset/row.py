"""The row: what a method makes, what a filter judges, what is written, with its proof.

A `Row` carries where it came from (slot, leaf, seeds, prompt digest), which stored answers it was made of
(`keys`), who wrote it and what that cost. The same row twice is equal byte for byte: nothing in it depends on
time, order of arrival or machine.
"""

# Arrow's arrays are generic over types that only run time knows.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportUnknownParameterType=false, reportMissingTypeArgument=false
from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from itertools import accumulate
from typing import Any

import pyarrow as pa

from distill.dataset.schema import FAILED_SCHEMA, LOGPROB, MESSAGE, ROW_SCHEMA
from distill.errors import FailureClass, UnreadableText
from distill.io import check_text
from distill.planning import Slot
from distill.teachers import Message, TokenLogprob

__all__ = [
    "ROW_SCHEMA",
    "Failure",
    "Fate",
    "Row",
    "failures_to_table",
    "rows_to_table",
]


@dataclass(frozen=True, slots=True)
class Row:
    """A candidate row. Messages hold the whole conversation; preference rows hold the prompt in `messages` and the
    two assistant texts in `chosen` and `rejected`."""

    id: str
    slot: Slot
    messages: tuple[Message, ...]
    teacher: str
    keys: tuple[str, ...] = ()
    cost: Decimal = Decimal(0)
    model: str = ""
    finish: str = "stop"
    reasoning: str | None = None
    answer: str | None = None
    """The final answer alone, where a method extracts one (reasoning)."""
    chosen: str | None = None
    rejected: str | None = None
    scores: Mapping[str, float] = field(default_factory=dict, hash=False)
    prompt_digest: str = ""
    usage_input: int = 0
    usage_output: int = 0
    logprobs: tuple[TokenLogprob, ...] | None = field(default=None, hash=False)
    """Of the tokens of the last assistant turn."""


@dataclass(frozen=True, slots=True)
class Failure:
    """A unit of work that produced no row. `raw` keeps what the teacher said, so that nothing is lost."""

    id: str
    slot: Slot
    failure: FailureClass
    message: str
    raw: str = ""
    keys: tuple[str, ...] = ()
    cost: Decimal = Decimal(0)
    teacher: str = ""


@dataclass(frozen=True, slots=True)
class Fate:
    """Why a row is not in the dataset: a filter's name, its reason code, and what shows it."""

    filter: str
    reason: str
    evidence: str = ""
    matched_id: str = ""
    score: float | None = None


def rows_to_table(rows: Sequence[Row]) -> pa.Table:
    """Rows as an Arrow table in `ROW_SCHEMA`, in the same order.

    Nested columns are built from flat lists and offsets, which is cheaper than from a list a row.

    Raises:
        UnreadableText: a text holds a lone surrogate; names the row.
    """
    slots = [row.slot for row in rows]
    turns = [message for row in rows for message in row.messages]
    try:
        columns: dict[str, pa.Array] = {
            "id": _text([row.id for row in rows]),
            "slot": pa.array([slot.index for slot in slots], pa.int64()),
            "leaf": _lists([slot.leaf for slot in slots]),
            "kind": _text([slot.twist or slot.kind for slot in slots]),
            "dims": _maps([slot.dims for slot in slots], pa.string()),
            "labels": _maps([slot.labels for slot in slots], pa.string()),
            "seeds": _lists([[seed.id for seed in slot.seeds] for slot in slots]),
            "messages": pa.ListArray.from_arrays(
                _offsets([len(row.messages) for row in rows]),
                pa.StructArray.from_arrays(
                    [_text([turn.role for turn in turns]), _text([turn.content for turn in turns])],
                    fields=list(MESSAGE),
                ),
            ),
            "reasoning": _text([row.reasoning for row in rows]),
            "answer": _text([row.answer for row in rows]),
            "chosen": _text([row.chosen for row in rows]),
            "rejected": _text([row.rejected for row in rows]),
            "scores": _maps([row.scores for row in rows], pa.float64()),
            "finish": _text([row.finish for row in rows]),
            "teacher": _text([row.teacher for row in rows]),
            "model": _text([row.model for row in rows]),
            "prompt_digest": _text([row.prompt_digest for row in rows]),
            "keys": _lists([row.keys for row in rows]),
            "input_tokens": pa.array([row.usage_input for row in rows], pa.int64()),
            "output_tokens": pa.array([row.usage_output for row in rows], pa.int64()),
            "cost_usd": pa.array([float(row.cost) for row in rows], pa.float64()),
            "logprobs": _logprobs([row.logprobs for row in rows]),
        }
    except UnicodeEncodeError:
        raise _unreadable(rows) from None
    return pa.Table.from_arrays([columns[name] for name in ROW_SCHEMA.names], schema=ROW_SCHEMA)


def failures_to_table(failures: Sequence[Failure]) -> pa.Table:
    """Failures as an Arrow table in `FAILED_SCHEMA`, in the same order. What the teacher said is kept even where no
    file could hold it exactly: lone surrogates become U+FFFD, and the message says so."""
    messages, raws = [failure.message for failure in failures], [failure.raw for failure in failures]
    columns: list[pa.Array] = [
        _text([failure.id for failure in failures]),
        pa.array([failure.slot.index for failure in failures], pa.int64()),
        _lists([failure.slot.leaf for failure in failures]),
        _text([failure.slot.twist or failure.slot.kind for failure in failures]),
        _text([failure.failure.value for failure in failures]),
        _text([_readable(message) for message in messages]),
        _text([_readable(raw) for raw in raws]),
        _lists([failure.keys for failure in failures]),
        _text([failure.teacher for failure in failures]),
        pa.array([float(failure.cost) for failure in failures], pa.float64()),
    ]
    return pa.Table.from_arrays(columns, schema=FAILED_SCHEMA)


def _text(values: Sequence[str | None]) -> pa.Array:
    return pa.array(values, pa.string())


def _offsets(counts: Sequence[int]) -> Any:
    return list(accumulate(counts, initial=0))


def _lists(values: Sequence[Sequence[str]]) -> pa.Array:
    flat = [item for value in values for item in value]
    return pa.ListArray.from_arrays(_offsets([len(value) for value in values]), _text(flat))


def _maps(values: Sequence[Mapping[str, Any]], item: pa.DataType) -> pa.Array:
    keys = [key for value in values for key in value]
    items = [entry for value in values for entry in value.values()]
    return pa.MapArray.from_arrays(_offsets([len(value) for value in values]), _text(keys), pa.array(items, item))


def _logprobs(values: Sequence[tuple[TokenLogprob, ...] | None]) -> pa.Array:
    kind = pa.list_(LOGPROB)
    if all(value is None for value in values):
        return pa.nulls(len(values), kind)
    made = [
        None
        if value is None
        else [
            {
                "token": said.token,
                "logprob": said.logprob,
                "top_logprobs": [{"token": token, "logprob": log} for token, log in said.top],
            }
            for said in value
        ]
        for value in values
    ]
    return pa.array(made, kind)


def _readable(text: str) -> str:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return text.encode("utf-8", "surrogatepass").decode("utf-8", "replace")
    return text


def _unreadable(rows: Sequence[Row]) -> UnreadableText:
    for row in rows:
        texts = (*(message.content for message in row.messages), row.reasoning, row.answer, row.chosen, row.rejected)
        for text in texts:
            try:
                check_text(text or "")
            except UnreadableText as error:
                return UnreadableText(f"row {row.id}: {error.message}")
    return UnreadableText("a row holds a lone surrogate outside its texts")
