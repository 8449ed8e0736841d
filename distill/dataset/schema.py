"""The columns of a run's Parquet files."""

# Arrow's arrays are generic over types that only run time knows.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportUnknownParameterType=false, reportMissingTypeArgument=false
from __future__ import annotations

import pyarrow as pa

__all__ = [
    "FAILED_SCHEMA",
    "FATE_FIELDS",
    "KEPT_SCHEMA",
    "LOGPROB",
    "MESSAGE",
    "REJECTED_SCHEMA",
    "ROW_SCHEMA",
    "VERDICTS_FIELD",
]

MESSAGE = pa.struct([("role", pa.string()), ("content", pa.string())])

_TOKEN = [("token", pa.string()), ("logprob", pa.float32())]
LOGPROB = pa.struct([*_TOKEN, ("top_logprobs", pa.list_(pa.struct(_TOKEN)))])
"""One token of an answer as its teacher saw it, in the shape of the chat completions API."""

ROW_SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("slot", pa.int64()),
        ("leaf", pa.list_(pa.string())),
        ("kind", pa.string()),
        ("dims", pa.map_(pa.string(), pa.string())),
        ("labels", pa.map_(pa.string(), pa.string())),
        ("seeds", pa.list_(pa.string())),
        ("messages", pa.list_(MESSAGE)),
        ("reasoning", pa.string()),
        ("answer", pa.string()),
        ("chosen", pa.string()),
        ("rejected", pa.string()),
        ("scores", pa.map_(pa.string(), pa.float64())),
        ("finish", pa.string()),
        ("teacher", pa.string()),
        ("model", pa.string()),
        ("prompt_digest", pa.string()),
        ("keys", pa.list_(pa.string())),
        ("input_tokens", pa.int64()),
        ("output_tokens", pa.int64()),
        ("cost_usd", pa.float64()),
        ("logprobs", pa.list_(LOGPROB)),
    ]
)
"""Columns of a row at rest and in filters. `kind` is `standard` or the adversarial kind's name; `keys` find the raw
answers in the store; `logprobs` is null where the teacher was not asked for them; kept rows have `verdicts` besides,
rejected ones `filter`, `reason`, `evidence`, `matched_id`, `score`."""


VERDICTS_FIELD = pa.field("verdicts", pa.list_(pa.struct([("filter", pa.string()), ("score", pa.float64())])))
"""Further column of kept rows: every filter that passed the row, and what it measured (null: nothing)."""

FATE_FIELDS = (
    pa.field("filter", pa.string()),
    pa.field("reason", pa.string()),
    pa.field("evidence", pa.string()),
    pa.field("matched_id", pa.string()),
    pa.field("score", pa.float64()),
)
"""Further columns of rejected rows."""

FAILED_SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("slot", pa.int64()),
        ("leaf", pa.list_(pa.string())),
        ("kind", pa.string()),
        ("failure", pa.string()),
        ("message", pa.string()),
        ("raw", pa.string()),
        ("keys", pa.list_(pa.string())),
        ("teacher", pa.string()),
        ("cost_usd", pa.float64()),
    ]
)
"""`failed.parquet`: a unit of work that made no row."""

KEPT_SCHEMA = ROW_SCHEMA.append(VERDICTS_FIELD)
"""`rows.parquet`: a row, and what each filter measured on it."""

REJECTED_SCHEMA = pa.schema([*ROW_SCHEMA, *FATE_FIELDS])
"""`rejected.parquet`: a row, and the verdict that rejected it."""
