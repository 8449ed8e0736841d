from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from distill.planning.reference import EXAMPLE, render_taxonomy, taxonomy_schema
from distill.recipe.docs import render_recipe
from distill.recipe.schema import chain_schema, json_schema

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize(
    ("path", "schema", "module"),
    [
        ("recipes/recipe.schema.json", json_schema(), "distill.recipe.schema"),
        ("filters/chain.schema.json", chain_schema(), "distill.recipe.schema"),
        ("taxonomies/taxonomy.schema.json", taxonomy_schema(), "distill.planning.reference"),
    ],
)
def test_the_shipped_schema_is_current(path: str, schema: dict[str, Any], module: str) -> None:
    assert json.loads((ROOT / path).read_text("utf-8")) == schema, f"run: python -m {module}"
    jsonschema.Draft202012Validator.check_schema(schema)


@pytest.mark.parametrize(
    ("path", "text", "module"),
    [
        ("docs/recipe.md", render_recipe(), "distill.recipe.schema"),
        ("docs/taxonomy.md", render_taxonomy(), "distill.planning.reference"),
    ],
)
def test_the_shipped_page_is_current(path: str, text: str, module: str) -> None:
    assert (ROOT / path).read_text("utf-8") == text, f"run: python -m {module}"


def test_every_field_has_a_description() -> None:
    schema = json_schema()
    for name, model in schema["$defs"].items():
        for field, value in model.get("properties", {}).items():
            assert field == "kind" or value.get("description"), f"{name}.{field}"


def recipes() -> list[Path]:
    return sorted((ROOT / "recipes").rglob("*.yaml"))


@pytest.mark.parametrize("path", recipes(), ids=str)
def test_shipped_recipes_satisfy_the_schema(path: Path) -> None:
    jsonschema.validate(yaml.safe_load(path.read_text("utf-8")), json_schema())


def test_the_schema_sees_a_typo() -> None:
    text = (ROOT / "docs" / "recipe.md").read_text("utf-8").split("```yaml\n")[1].split("```")[0]
    value = yaml.safe_load(text)
    jsonschema.validate(value, json_schema())
    value["plan"]["targt"] = 3
    with pytest.raises(jsonschema.ValidationError, match="targt"):
        jsonschema.validate(value, json_schema())


def test_the_documented_taxonomy_satisfies_its_schema() -> None:
    value = yaml.safe_load(EXAMPLE)
    jsonschema.validate(value, taxonomy_schema())
    value["topics"]["cards"]["wieght"] = 1
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(value, taxonomy_schema())
