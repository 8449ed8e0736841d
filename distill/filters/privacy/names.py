"""People's names, found by a spaCy pipeline: no rule knows a name from another word.

spaCy is an extra (`distill[names]`), and the pipeline is the user's choice: one that is installed (`en_core_web_sm`)
or a folder. What it misses stays, and it takes some words for names that are none: its makers state how many.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from distill.errors import InputError
from distill.filters.privacy.detect import Finding

__all__ = ["People"]

_LABELS = frozenset({"PERSON", "PER"})
_LONGEST = 100_000  # characters: a pipeline needs about 1 GB for as many


class People:
    """Finds people in texts."""

    def __init__(self, model: str) -> None:
        """
        Raises:
            InputError: spaCy or the pipeline is not there, or the pipeline finds no people.
        """
        self._pipeline = _load(model)
        labels = {label for name in self._pipeline.pipe_names for label in self._pipeline.pipe_labels.get(name, ())}
        if not labels & _LABELS:
            raise InputError(
                f"the pipeline {model} finds no people", field="model", hint="it needs the label PERSON or PER"
            )

    def find(self, text: str) -> list[Finding]:
        """The names in `text`, in order."""
        found: list[Finding] = []
        for first in range(0, len(text), _LONGEST):
            for entity in self._pipeline(text[first : first + _LONGEST]).ents:
                name = entity.text.strip(" \t\n.,;:'\"")
                if entity.label_ in _LABELS and any(map(str.isalpha, name)):
                    start = first + entity.start_char + entity.text.find(name)
                    found.append(Finding(start, start + len(name), "name", name))
        return found


def _load(model: str) -> Any:
    try:
        import spacy  # pyright: ignore[reportMissingImports]
    except ImportError:
        hint = "pip install 'distill[names]', and a pipeline such as en_core_web_sm"
        raise InputError("kind `name` needs spaCy, which is not installed", field="model", hint=hint) from None
    library: Any = spacy
    try:
        return library.load(Path(model) if Path(model).is_dir() else model)
    except (OSError, ValueError, ImportError) as error:
        hint = f"python -m spacy download {model}, or name a folder"
        raise InputError(f"no such pipeline: {' '.join(str(error).split())[:200]}", field="model", hint=hint) from None
