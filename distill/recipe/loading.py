"""From a YAML file to a checked model, with errors that name file, line, field and the nearest right one."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar, cast, overload

from pydantic import TypeAdapter, ValidationError

from distill.assets import find
from distill.errors import InputError
from distill.io.yamlfile import Lines, read_yaml
from distill.recipe.filters import FilterStep
from distill.recipe.problems import Problem, problems_of, report
from distill.recipe.recipe import Recipe

__all__ = ["load_chain", "load_recipe", "parse", "parse_file"]

T = TypeVar("T")

_ENV = re.compile(r"\$\{[A-Za-z_][A-Za-z0-9_]*\}")


def load_recipe(path: Path) -> Recipe:
    """Read and check a recipe; its relative paths start from its own folder.

    Raises:
        InputError: every problem found, one a line.
    """
    return parse_file(Recipe, path).at(path.parent.resolve())


def load_chain(name: str, folder: Path | None = None) -> tuple[FilterStep, ...]:
    """The steps of a chain file, which is a bare list of steps.

    Args:
        name: a path, or the name of a file in `filters/`.
        folder: where the file that names the chain stands.

    Raises:
        InputError: there is no such chain, or it is wrong.
    """
    return parse_file(tuple[FilterStep, ...], find("filters", name, base=folder))


@overload
def parse_file(model: type[T], path: Path) -> T: ...
@overload
def parse_file(model: Any, path: Path) -> Any: ...
def parse_file(model: Any, path: Path) -> Any:
    """Read a YAML file into `model` (a pydantic model or any annotated type).

    Raises:
        InputError: unreadable, not YAML, empty, or not what `model` takes.
    """
    value, lines = read_yaml(path)
    if value is None:
        raise InputError("the file is empty", path=path)
    return parse(model, value, path=path, lines=lines)


@overload
def parse(model: type[T], value: Any, *, path: Path | None = None, lines: Lines | None = None) -> T: ...
@overload
def parse(model: Any, value: Any, *, path: Path | None = None, lines: Lines | None = None) -> Any: ...
def parse(model: Any, value: Any, *, path: Path | None = None, lines: Lines | None = None) -> Any:
    """Check `value` against `model`.

    Raises:
        InputError: every problem, one a line.
    """
    problems: list[Problem] = []
    misplaced: set[Sequence[str | int]] = set()
    if model is Recipe:
        misplaced = set(_misplaced(value))
        said = "${…} stands only in api_key, hook.webhook and store: write the value itself"
        problems += [(keys, said) for keys in misplaced]
    try:
        checked = TypeAdapter(model).validate_python(value)
    except ValidationError as error:
        # What else is wrong with a value that should not be there is of no interest.
        problems += [item for item in problems_of(model, error) if item[0] not in misplaced]
    else:
        if not problems:
            return checked
    raise report(problems, path=path, lines=lines or {})


def _misplaced(value: Any, keys: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """Where a `${NAME}` stands outside a teacher's `api_key` and the addresses of hook and store. Everything else is
    written to files and logs, so it may not depend on, or reveal, the environment."""
    if isinstance(value, dict):
        for key, inner in cast("dict[Any, Any]", value).items():
            yield from _misplaced(inner, (*keys, key))
    elif isinstance(value, (list, tuple)):
        for position, inner in enumerate(cast("list[Any]", value)):
            yield from _misplaced(inner, (*keys, position))
    elif isinstance(value, str) and _ENV.search(value):
        secret = len(keys) == 3 and keys[0] == "teachers" and keys[2] == "api_key"
        if not secret and keys not in (("hook", "webhook"), ("store",)):
            yield keys
