"""Marked answers: a prompt, one answer, and whether it is good. What KTO learns from.

    prompt, completion, label        text, or lists of messages; `label` true or false
    messages, label                  a conversation whose last turn is the answer
    any layout of a preference pair  the chosen answer is good, the rejected one is not

The layouts may stand in one file. What is none of them is an error that names file, line and field.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distill.errors import InputError
from distill.io import digest
from distill.train.data import Conversation, Turn, conversation, read_table, split_files
from distill.train.pairs import pair

__all__ = ["Marked", "MarkedData", "marked", "read_marked"]


@dataclass(frozen=True, slots=True)
class Marked:
    """One answer: the prompt's turns, the answer, its mark, and where it was read (`file:line`)."""

    prompt: tuple[Turn, ...]
    answer: str
    good: bool
    where: str = ""

    @property
    def conversation(self) -> Conversation:
        """The conversation that ends with the answer."""
        return Conversation((*self.prompt, {"role": "assistant", "content": self.answer}), self.where)


@dataclass(frozen=True)
class MarkedData:
    """What marks are learned from, and the answers they are measured on."""

    train: tuple[Marked, ...]
    validation: tuple[Marked, ...] = ()
    sources: tuple[str, ...] = ()
    """File names, without folders."""

    @classmethod
    def read(cls, train: Path, validation: Path | None = None) -> MarkedData:
        """Read one file, or a folder that holds `train.jsonl` (and `validation.jsonl`).

        Raises:
            InputError: a file cannot be read, lacks good or bad answers, or a row is not of a known layout.
        """
        train, validation = split_files(train, validation)
        rows = tuple(read_marked(train))
        for good in (True, False):
            if not any(row.good is good for row in rows):
                raise InputError(f"holds no answer with label {str(good).lower()}", path=train)
        watched = tuple(read_marked(validation)) if validation is not None else ()
        return cls(rows, watched, tuple(path.name for path in (train, validation) if path is not None))

    @property
    def digest(self) -> str:
        """Identifies the answers, in their order; the file they came from does not matter."""
        splits = (self.train, self.validation)
        return digest([[[row.prompt, row.answer, row.good] for row in split] for split in splits])


def read_marked(path: Path) -> Iterator[Marked]:
    """The marked answers of a JSON Lines or Parquet file.

    Raises:
        InputError: names the file, the line (in Parquet: the row, from 1) and the field.
    """
    for line, row in read_table(path):
        yield from marked(row, path=path, line=line)


def marked(row: Mapping[str, Any], *, path: Path | None = None, line: int | None = None) -> tuple[Marked, ...]:
    """The answers that `row` holds: one, or both of a pair."""
    if "chosen" in row and "rejected" in row:
        both = pair(row, path=path, line=line)
        sides = ((both.chosen, True), (both.rejected, False))
        return tuple(Marked(both.prompt, answer, good, both.where) for answer, good in sides)
    label = row.get("label")
    if not isinstance(label, bool) and label not in (0, 1):
        raise InputError(
            "should be true or false" if "label" in row else "the row says not whether its answer is good",
            path=path,
            line=line,
            field="label",
            hint="known: prompt + completion + label | messages + label | prompt + chosen + rejected",
        )
    whole = conversation({key: value for key, value in row.items() if key != "label"}, path=path, line=line)
    return (Marked(whole.turns[:-1], whole.turns[-1]["content"], bool(label), whole.where),)
