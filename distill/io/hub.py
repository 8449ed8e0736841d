# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# The hub's library has few types.
"""Datasets of the hub, or of a folder laid out like one. Code that comes with a dataset is never run."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from distill.errors import InputError

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["HUB", "hub_name", "hub_tables"]

HUB = "hub:"
"""What a path begins with that means a dataset: `hub:OWNER/NAME`, `hub:OWNER/NAME@CONFIG:SPLIT`."""

_BATCH = 1024


def hub_name(path: str) -> tuple[str, str | None, str | None]:
    """(dataset, configuration, split) of a path that begins with `hub:`; None for what it does not say.

    Raises:
        InputError: it names no dataset.
    """
    name, _, split = path.removeprefix(HUB).partition(":")
    name, _, config = name.partition("@")
    if not name:
        raise InputError(f"{path} names no dataset", hint=f"write {HUB}OWNER/NAME, or {HUB}OWNER/NAME@CONFIG:SPLIT")
    return name, config or None, split or None


def hub_tables(name: str, *, config: str | None, split: str) -> Iterator[pa.Table]:
    """The rows of a split, some at a time.

    Raises:
        InputError: there is no such dataset, configuration or split, or it cannot be reached.
    """
    import datasets

    try:
        loaded: Any = datasets.load_dataset(name, config, split=split)
    except Exception as error:  # the library and those beneath it raise many kinds
        why = str(error).splitlines()[0] if str(error) else type(error).__name__
        way_out = "download the file and give its path instead of the dataset"
        raise InputError(f"the dataset {name} cannot be loaded: {why}", field="path", hint=way_out) from None
    for table in loaded.with_format("arrow").iter(batch_size=_BATCH):
        yield table.replace_schema_metadata()
