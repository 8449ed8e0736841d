"""Eval sets: questions that must not stand in training data.

From a file (JSONL, Parquet, CSV), from an lm-eval task (its YAML file, which names local data files or a hub dataset),
or from the hub. Code that comes with a dataset or a task is never run.
"""

# Arrow's arrays are generic over types that only run time knows.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportUnknownParameterType=false, reportMissingTypeArgument=false
from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from distill.assets import find
from distill.errors import InputError
from distill.filters.decontamination.evalsources import hub_batches, task_sets
from distill.filters.reading import Batch, open_source
from distill.filters.text import Absent, text
from distill.io.hub import HUB
from distill.recipe import EvalSet

__all__ = ["EvalItem", "load_items"]

_IDS = ("id", "task_id", "question_id", "qid")


@dataclass(frozen=True, slots=True)
class EvalItem:
    """One question. `id` is the set's own, else its place in the file (the line, or the row of a Parquet file)."""

    set: str
    id: str
    text: str

    @property
    def name(self) -> str:
        return f"{self.set}:{self.id}"


def load_items(sets: Sequence[EvalSet], folder: Path) -> list[EvalItem]:
    """The questions of all sets, in order. Relative paths start from `folder`, else from the workspace.

    Raises:
        InputError: a file is missing, broken, or has no such column; a dataset cannot be reached.
    """
    return [item for eval_set in sets for item in _load(eval_set, folder)]


def _load(eval_set: EvalSet, folder: Path) -> list[EvalItem]:
    if eval_set.path.startswith(HUB):
        where = eval_set.path.removeprefix(HUB)
        items = [item for batch in hub_batches(eval_set) for item in _items(batch, eval_set, Path(where))]
        return _some(items, Path(where))
    path = find("data", eval_set.path, base=folder)
    if path.suffix.lower() in (".yaml", ".yml"):
        parts = [item for part in task_sets(path, eval_set) for item in _load(part, path.parent)]
        # Places in several files may be the same.
        ids = Counter(item.id for item in parts)
        return [replace(item, id=f"{number}") if ids[item.id] > 1 else item for number, item in enumerate(parts, 1)]

    def refuse(place: int, why: str) -> None:
        raise InputError(why, path=path, line=place)

    source = open_source(path, refuse, text=None)
    return _some([item for batch in source.batches() for item in _items(batch, eval_set, path)], path)


def _items(batch: Batch, eval_set: EvalSet, path: Path) -> list[EvalItem]:
    try:
        questions = text(batch.table, eval_set.field or "prompt").to_pylist()
    except Absent as error:
        hint = error.hint if eval_set.field else f"name the column with `field`; {error.hint}"
        raise InputError(error.message, path=path, hint=hint) from None
    return [
        EvalItem(eval_set.name or path.stem, name, question)
        for name, question in zip(_names(batch), questions, strict=True)
        if question
    ]


def _some(items: list[EvalItem], path: Path) -> list[EvalItem]:
    if not items:
        raise InputError("no question in this eval set", path=path)
    return items


def _names(batch: Batch) -> list[str]:
    column = next((name for name in _IDS if name in batch.table.column_names), None)
    own = batch.table.column(column).to_pylist() if column else [None] * len(batch.places)
    return [str(place) if value is None else str(value) for value, place in zip(own, batch.places, strict=True)]
