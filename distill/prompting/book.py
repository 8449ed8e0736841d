"""The prompts of a recipe, each read once."""

from __future__ import annotations

from pathlib import Path

from distill.assets import find
from distill.prompting.prompt import Prompt, load_prompt

__all__ = ["PromptBook"]


class PromptBook:
    """Finds prompts as the recipe names them.

    Args:
        folder: the recipe's folder, where relative paths start.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder
        self._prompts: dict[str, Prompt] = {}

    def get(self, name: str) -> Prompt:
        """The prompt that `name` means: a path, or the name of a file in `prompts/`.

        Raises:
            InputError: there is none, or the file is wrong.
        """
        if name not in self._prompts:
            self._prompts[name] = load_prompt(find("prompts", name, base=self._folder), name)
        return self._prompts[name]
