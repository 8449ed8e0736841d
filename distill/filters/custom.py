"""Filters that other packages bring: entry points of the group `distill.filters`.

    # pyproject.toml of the package
    [project.entry-points."distill.filters"]
    polite = "my_package.filters:Polite"

    # a chain
    - {kind: custom, filter: polite, fields: [response], options: {least: 2}}

The entry point names a class (or a function) that is called with the options as keywords and gives a `Filter`:

    class Polite:
        def __init__(self, *, name: str, fields: tuple[str, ...], folder: Path, least: int = 1) -> None: ...
        def judge(self, rows: pyarrow.Table) -> Verdicts: ...

A chain can name what is installed, and nothing else: no file of a user's says which code is imported.
"""

from __future__ import annotations

from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

import pyarrow as pa

from distill.errors import InputError
from distill.filters.base import Filter, Verdicts
from distill.io.conversion import with_pandas
from distill.recipe import CustomStep, suggest

__all__ = ["GROUP", "load_custom", "package_of"]

GROUP = "distill.filters"


class _Checked:
    """A filter of unknown make: what it says must fit the rows."""

    def __init__(self, inner: Any, name: str) -> None:
        self.name = name
        self._inner = inner

    def judge(self, rows: pa.Table) -> Verdicts:
        verdicts = self._inner.judge(rows)
        if not isinstance(verdicts, Verdicts):
            raise InputError(f"the filter {self.name} gave {type(verdicts).__name__}, not Verdicts", field="filters")
        columns = (verdicts.keep, verdicts.reason, verdicts.evidence, verdicts.matched_id, verdicts.score)
        lengths = {len(column) for column in columns}
        if lengths != {rows.num_rows}:
            raise InputError(
                f"the filter {self.name} gave {min(lengths)} to {max(lengths)} verdicts for {rows.num_rows} rows",
                field="filters",
            )
        return verdicts


def load_custom(step: CustomStep, name: str, *, folder: Path) -> Filter:
    """The filter of an installed package.

    Raises:
        InputError: none has this name, two have, or it does not take the options.
    """
    point = _point(step.filter)
    with_pandas()  # it may judge with data frames
    try:
        made = point.load()(name=name, fields=step.fields, folder=folder, **step.options)
    except (ImportError, AttributeError) as error:
        raise InputError(
            f"the filter {step.filter} ({point.value}) cannot be loaded: {error}", field="filter"
        ) from None
    except (TypeError, ValueError) as error:
        raise InputError(f"the filter {step.filter} does not take its options: {error}", field="options") from None
    if not callable(getattr(made, "judge", None)):
        raise InputError(f"the filter {step.filter} ({point.value}) has no method judge", field="filters")
    return _Checked(made, name)


def package_of(step: CustomStep) -> str:
    """Name and version of the package that brings the filter; another version may judge otherwise.

    Raises:
        InputError: none brings it, or two do.
    """
    dist = _point(step.filter).dist
    return "" if dist is None else f"{dist.name} {dist.version}"


def _point(name: str) -> EntryPoint:
    points = entry_points(group=GROUP)
    # One distribution may be found twice on the path; two packages with one name are a mistake.
    found = {point.value: point for point in points if point.name == name}
    if not found:
        hint = f"filters come from installed packages, as entry points of the group {GROUP}"
        raise InputError(f"no filter {name}; {suggest(name, sorted(points.names))}", field="filter", hint=hint)
    if len(found) > 1:
        raise InputError(f"two packages bring a filter {name}: {', '.join(sorted(found))}", field="filter")
    return next(iter(found.values()))
