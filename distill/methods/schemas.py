"""JSON Schema files that a recipe names."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

from distill.assets import find
from distill.errors import InputError
from distill.io import loads
from distill.methods.structured import Structure

__all__ = ["load_structure"]


def load_structure(name: str, folder: Path) -> Structure:
    """Read and compile the schema file `name`, looked for from the recipe's folder on.

    Raises:
        InputError: there is no such file, it is not JSON, or not a JSON Schema; names the file.
    """
    path = find("data", name, base=folder)
    try:
        value: Any = loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise InputError(f"cannot be read as JSON: {error}", path=path) from None
    if not isinstance(value, dict):
        raise InputError("not a JSON Schema: an object was expected", path=path)
    return Structure(cast("dict[str, Any]", value), name=str(path))
