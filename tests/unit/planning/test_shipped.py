"""Every YAML file that users get is loaded through the real loader."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from distill.assets import find
from distill.io.yamlfile import read_yaml
from distill.planning import Planner, load_seeds, load_taxonomy
from distill.recipe import TrainConfig, load_chain, load_recipe, parse

ROOT = Path(__file__).parents[3]


def files(folder: str) -> list[Path]:
    return sorted((ROOT / folder).rglob("*.yaml"))


@pytest.mark.parametrize("path", files("taxonomies"), ids=str)
def test_taxonomy(path: Path) -> None:
    taxonomy = load_taxonomy(path)
    planner = Planner("shipped", taxonomy)
    per_leaf = dict.fromkeys(planner.leaves, 0)
    for slot in itertools.islice(planner.slots(), 200):
        per_leaf[slot.leaf] += 1
    assert all(abs(count - planner.quota(200)[leaf]) <= 2 for leaf, count in per_leaf.items())


@pytest.mark.parametrize("path", files("filters"), ids=str)
def test_chain(path: Path) -> None:
    assert load_chain(str(path)) or path.stem == "none"


@pytest.mark.parametrize("path", files("recipes"), ids=str)
def test_recipe(path: Path) -> None:
    recipe = load_recipe(path)
    taxonomy = load_taxonomy(find("taxonomies", recipe.plan.taxonomy, base=recipe.folder))
    if recipe.plan.seeds is not None:
        assert load_seeds(find("data", recipe.plan.seeds, base=recipe.folder), taxonomy)
    if isinstance(recipe.filters, str):
        load_chain(recipe.filters, recipe.folder)


@pytest.mark.parametrize("path", files("train"), ids=str)
def test_training(path: Path) -> None:
    value, lines = read_yaml(path)
    assert parse(TrainConfig, {"model": "student", **value}, path=path, lines=lines).model
