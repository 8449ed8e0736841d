"""From the `method:` section of a recipe to the method."""

from __future__ import annotations

from typing import Any, Protocol, cast

from distill.methods.base import Method, Prompts
from distill.methods.preference import Preference
from distill.methods.reasoning import Reasoning
from distill.methods.response import Response
from distill.recipe import Recipe

__all__ = ["METHODS", "build_method"]


class _Build(Protocol):
    def __call__(self, recipe: Recipe, config: Any, prompts: Prompts) -> Method: ...


METHODS: dict[str, _Build] = {
    "response": cast("_Build", Response),
    "reasoning": cast("_Build", Reasoning),
    "preference": cast("_Build", Preference),
}
"""`kind` of the section -> what builds it."""


def build_method(recipe: Recipe, prompts: Prompts) -> Method:
    """The method of a recipe, with its prompts, schemas and sampling resolved once.

    Raises:
        InputError: a prompt or schema file is missing or wrong.
    """
    return METHODS[recipe.method.kind](recipe, recipe.method, prompts)
