"""The recipe that a command's argument means."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from distill.cli.console import find_recipe
from distill.cli.logs import mask

if TYPE_CHECKING:
    from distill.recipe import Recipe

__all__ = ["load"]


def load(named: str | Path) -> Recipe:
    """Read and check the recipe: a file, or the name of one in `recipes/`. From now on no log shows its secrets,
    wherever they stand and whatever their variables are called.

    Raises:
        InputError: there is no such recipe, or it is wrong.
    """
    from distill.engine.session import secrets_of
    from distill.recipe import load_recipe

    recipe = load_recipe(find_recipe(str(named)))
    mask(secrets_of(recipe))
    return recipe
