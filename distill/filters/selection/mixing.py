"""Rows of a general-purpose set for the training split, so that a student does not forget what it could do before.

They pass filters of their own: exact duplicates go, and so does what shares text with the run's eval sets and holdout,
as for rows that were generated. Which rows are taken depends on the file and the number alone.
"""

# Arrow's arrays are generic over types that only run time knows.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportUnknownParameterType=false, reportMissingTypeArgument=false
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from distill.errors import InputError
from distill.filters.building import FilterContext, build_chain
from distill.filters.sampling import read_rows
from distill.filters.text import Absent, ids, text
from distill.recipe import DecontaminateStep, EvalSet, ExactStep, FilterStep

__all__ = ["Mixed", "general_rows", "wanted_rows"]

_SPARE = 2  # candidates for each row that is wanted: some fall to the filters
_LEAST = 1_000
_TURNS = ("messages", "conversations")
_ROLES = {"human": "user", "gpt": "assistant", "model": "assistant", "bot": "assistant"}


@dataclass(frozen=True, slots=True)
class Mixed:
    """Rows of the general set, and what became of the candidates."""

    records: list[dict[str, Any]]
    """`id` and `messages`, the last turn being the assistant's."""
    rejected: dict[str, int]
    """Candidates by the filter that dropped them; `unusable` ones are not questions and answers in turn."""
    note: str | None
    """Said when there are fewer rows than wanted."""


def wanted_rows(own: int, share: float) -> int:
    """Rows to add to `own` rows so that they make up `share` of all."""
    return round(own * share / (1 - share))


def general_rows(path: Path, wanted: int, *, folder: Path, eval_sets: Sequence[EvalSet] = ()) -> Mixed:
    """`wanted` rows of the set at `path` (JSONL, Parquet or CSV with conversations, or a prompt and a response).

    Raises:
        InputError: the file cannot be read, or has no such columns.
    """
    rows = read_rows(path, max(_LEAST, _SPARE * wanted))
    steps: list[FilterStep] = [ExactStep(kind="exact", seeds=False)]
    if eval_sets:
        steps.append(DecontaminateStep(kind="decontaminate"))
    chain = build_chain(steps, FilterContext(folder=folder, eval_sets=eval_sets))
    try:
        kept = rows.filter(pa.array(chain.judge(rows).keep))
        conversations = _conversations(kept)
    except Absent as error:
        raise InputError(f"dataset.mix: {error.message}", path=path, hint=error.hint) from None
    usable = [
        {"id": f"mix-{name}", "messages": turns}
        for name, turns in zip(ids(kept), conversations, strict=True)
        if _alternate([turn["role"] for turn in turns])
    ]
    rejected = {name: sum(reasons.values()) for name, reasons in chain.counts.items() if reasons}
    if len(usable) < kept.num_rows:
        rejected["unusable"] = kept.num_rows - len(usable)
    note = None
    if len(usable) < wanted:
        note = f"{path.name} has {len(usable):,} usable rows; the share would need {wanted:,}"
    places = np.linspace(0, len(usable) - 1, min(wanted, len(usable))).astype(np.int64)
    return Mixed([usable[place] for place in places.tolist()], rejected, note)


def _conversations(rows: pa.Table) -> list[list[dict[str, str]]]:
    name = next((name for name in _TURNS if name in rows.column_names), None)
    if name is not None and pa.types.is_list(rows.schema.field(name).type):
        return [[_turn(turn) for turn in turns or ()] for turns in rows.column(name).to_pylist()]
    pairs = zip(text(rows, "prompt").to_pylist(), text(rows, "response").to_pylist(), strict=True)
    return [
        [{"role": "user", "content": prompt}, {"role": "assistant", "content": response}] if prompt and response else []
        for prompt, response in pairs
    ]


def _alternate(roles: list[str]) -> bool:
    """True for a system turn or none, then questions and answers in turn: what every layout can hold."""
    talk = roles[1:] if roles[:1] == ["system"] else roles
    return bool(talk) and talk == ["user", "assistant"] * (len(talk) // 2)


def _turn(turn: dict[str, Any]) -> dict[str, str]:
    role = str(turn.get("role", turn.get("from")))
    return {"role": _ROLES.get(role, role), "content": str(turn.get("content", turn.get("value")) or "")}
