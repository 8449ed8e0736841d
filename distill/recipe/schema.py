"""JSON Schemas of the files users write, for editors that complete and check while one types.

`python -m distill.recipe.schema` writes `recipes/recipe.schema.json`, `filters/chain.schema.json` and
`docs/recipe.md` of a checkout.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast

from pydantic import TypeAdapter

from distill.io import write_text
from distill.recipe.filters import FilterStep
from distill.recipe.recipe import Recipe

__all__ = ["chain_schema", "json_schema", "schema_of", "write_schema"]

_DIALECT = "https://json-schema.org/draft/2020-12/schema"


def json_schema() -> dict[str, Any]:
    """The schema of a recipe; the fields' docstrings are its descriptions."""
    return schema_of(Recipe, "distill recipe")


def chain_schema() -> dict[str, Any]:
    """The schema of a filter chain, which is a list of steps."""
    return schema_of(tuple[FilterStep, ...], "distill filter chain")


def schema_of(model: Any, title: str) -> dict[str, Any]:
    """The schema of any model, without the titles that pydantic derives from names."""
    schema = cast("dict[str, Any]", _clean(TypeAdapter(model).json_schema(by_alias=True)))
    return {"$schema": _DIALECT, "title": title, **schema}


def write_schema(path: Path, schema: dict[str, Any] | None = None) -> None:
    """Write a schema, the recipe's if none is given, as the repository keeps it."""
    write_text(path, json.dumps(schema or json_schema(), indent=2, ensure_ascii=False) + "\n")


def _clean(node: Any) -> Any:
    if isinstance(node, list):
        return [_clean(item) for item in cast("list[Any]", node)]
    if not isinstance(node, dict):
        return node
    cleaned: dict[str, Any] = {}
    for key, value in cast("dict[str, Any]", node).items():
        if key == "title" and isinstance(value, str):
            continue
        if key == "description" and isinstance(value, str):
            cleaned[key] = " ".join(value.split())
        elif key in ("properties", "$defs"):
            # Names of the user's own: a field may be called `title`.
            cleaned[key] = {name: _clean(inner) for name, inner in cast("dict[str, Any]", value).items()}
        else:
            cleaned[key] = _clean(value)
    return cleaned


if __name__ == "__main__":
    from distill.recipe.docs import render_recipe

    root = Path(__file__).parents[2]
    write_schema(root / "recipes" / "recipe.schema.json")
    write_schema(root / "filters" / "chain.schema.json", chain_schema())
    write_text(root / "docs" / "recipe.md", render_recipe())
