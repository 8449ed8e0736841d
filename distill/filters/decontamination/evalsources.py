"""Where eval sets come from beside plain files: the hub, and the tasks of lm-evaluation-harness.

A task is read as data: its YAML says which files or dataset hold the documents and how a question is made of one.
`!function` and templates are not run. The question is the column that the template of `doc_to_text` names first, and
`field` of the eval set overrules it.
"""

# The hub's library has few types.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportUnknownParameterType=false
from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import yaml

from distill.errors import InputError
from distill.filters.reading import Batch
from distill.io.hub import HUB, hub_tables
from distill.recipe import EvalSet

__all__ = ["hub_batches", "task_sets"]

_FILES = {"json", "csv", "parquet"}
_COLUMN = re.compile(r"\{\{-?\s*(?:doc\.)?([A-Za-z_]\w*)")
_INCLUDES = 8


def hub_batches(eval_set: EvalSet) -> Iterator[Batch]:
    """The rows of a split of a hub dataset.

    Raises:
        InputError: there is no such dataset, configuration or split, or it cannot be reached.
    """
    place = 1
    name = eval_set.path.removeprefix(HUB)
    for rows in hub_tables(name, config=eval_set.config, split=eval_set.split or "test"):
        yield Batch(rows, list(range(place, place + rows.num_rows)))
        place += rows.num_rows


def task_sets(path: Path, eval_set: EvalSet) -> list[EvalSet]:
    """The files, or the hub dataset, that a task asks.

    Raises:
        InputError: it is not a task, or names no data.
    """
    task = _task(path)
    source = task.get("dataset_path")
    if not isinstance(source, str):
        raise InputError("names no dataset_path", path=path, hint="give the data file itself as `path`")
    split = eval_set.split or task.get("test_split") or task.get("validation_split") or "test"
    name = eval_set.name or str(task.get("task") or path.stem)
    field = eval_set.field or _question(task, path)
    if source not in _FILES:
        config = eval_set.config or task.get("dataset_name")
        return [EvalSet(path=HUB + source, field=field, name=name, split=split, config=config)]
    files = cast("dict[str, Any]", task.get("dataset_kwargs") or {}).get("data_files")
    if isinstance(files, dict):
        if split not in files:
            raise InputError(f"has no data_files for the split {split}", path=path, hint="name a split with `split`")
        files = cast("dict[str, Any]", files)[split]
    found = [files] if isinstance(files, str) else files
    if not isinstance(found, list) or not found or not all(isinstance(file, str) for file in found):
        raise InputError("names no data_files", path=path, field="dataset_kwargs")
    return [EvalSet(path=str(_local(path, file)), field=field, name=name) for file in cast("list[str]", found)]


def _local(path: Path, file: str) -> Path:
    """lm-eval resolves names from the working folder; tasks that travel with their data, from their own."""
    beside = path.parent / file
    return beside if beside.exists() else Path(file).resolve()


def _task(path: Path, depth: int = 0) -> dict[str, Any]:
    try:
        value = yaml.load(path.read_text("utf-8"), _TaskLoader)  # noqa: S506 - safe: tags stay text
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror}", path=path) from None
    except (yaml.YAMLError, ValueError) as error:
        raise InputError(f"not valid YAML: {str(error).splitlines()[0]}", path=path) from None
    if not isinstance(value, dict):
        raise InputError("is not an lm-eval task", path=path)
    task = cast("dict[str, Any]", value)
    base = task.pop("include", None)
    if isinstance(base, str):
        if depth >= _INCLUDES:
            raise InputError("includes too deeply", path=path, field="include")
        return _task(path.parent / base, depth + 1) | task
    return task


def _question(task: dict[str, Any], path: Path) -> str:
    template = task.get("doc_to_text")
    if isinstance(template, str):
        if found := _COLUMN.search(template):
            return found.group(1)
        if template.isidentifier():
            return template
    raise InputError("does not say which column is the question", path=path, hint="name it with `field`")


class _TaskLoader(yaml.SafeLoader):
    """Safe YAML; `!function module.name` stays the text it is."""


def _plain(loader: _TaskLoader, suffix: str, node: yaml.Node) -> str:
    return f"!{suffix} {getattr(node, 'value', '')}"


_TaskLoader.add_multi_constructor("!", _plain)
