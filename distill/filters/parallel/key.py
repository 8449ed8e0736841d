"""The digest of all that decides what a chain says of a file: whether verdicts of an earlier run may be used again."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, cast

import xxhash

from distill.assets import find
from distill.errors import InputError
from distill.filters.building import FilterContext
from distill.io import canonical
from distill.recipe import FilterStep

__all__ = ["content", "key_of"]

_FORM = 1  # of the records and of how a file is cut into batches
_PIECE = 8 << 20


def key_of(source: Path, steps: Sequence[FilterStep], context: FilterContext, options: dict[str, Any]) -> str:
    """Hex digest of the rows, the steps, the files that steps name, and the program's version.

    Models are known by name, eval sets on a hub by their id.
    """
    declared: list[Any] = [step.model_dump(mode="json") for step in steps]
    declared += [each.model_dump(mode="json") for each in context.eval_sets]
    named = {text: digest for text in sorted(set(_texts(declared))) if (digest := _file(text, context.folder))}
    seeds = [list(seed) for seed in context.seeds]
    value = [_FORM, version("distill"), declared, named, str(context.folder), seeds, options]
    hash_ = xxhash.xxh3_128(canonical(value))
    hash_.update(content(source).encode())
    return hash_.hexdigest()


def content(path: Path) -> str:
    """Hex digest of a file's bytes."""
    hash_ = xxhash.xxh3_128()
    with path.open("rb") as file:
        while piece := file.read(_PIECE):
            hash_.update(piece)
    return hash_.hexdigest()


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for inner in cast("dict[str, Any]", value).values():
            yield from _texts(inner)
    elif isinstance(value, list):
        for inner in cast("list[Any]", value):
            yield from _texts(inner)


def _file(text: str, folder: Path) -> str:
    """The digest of the file that a step's text names; empty if it names none."""
    try:
        path = folder / Path(text).expanduser()
        if not path.is_file():
            path = find("data", text, base=folder)
        return content(path)
    except (OSError, ValueError, RuntimeError, InputError):
        return ""
