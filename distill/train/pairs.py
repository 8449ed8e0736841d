"""Preference rows: one prompt, a better answer and a worse one.

    prompt, chosen, rejected     text, or lists of messages; `system` may stand beside a text prompt
    chosen, rejected             two whole conversations that differ in their last turn (as in Anthropic HH)

Where `chosen` and `rejected` repeat the prompt, it is taken off. What is neither layout is an error that names file,
line and field. Pairs whose answers are equal teach nothing: they are left out and counted.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distill.errors import InputError
from distill.io import digest
from distill.train.data import Conversation, Turn, read_table, split_files, text_of, turns_of, with_system

__all__ = ["Pair", "PairData", "pair", "read_pairs"]


@dataclass(frozen=True, slots=True)
class Pair:
    """One row: the prompt's turns, both answers, and where it was read (`file:line`)."""

    prompt: tuple[Turn, ...]
    chosen: str
    rejected: str
    where: str = ""

    def ending(self, answer: str) -> Conversation:
        """The conversation that ends with `answer`."""
        return Conversation((*self.prompt, {"role": "assistant", "content": answer}), self.where)


@dataclass(frozen=True)
class PairData:
    """What preferences are learned from, and the pairs they are measured on."""

    train: tuple[Pair, ...]
    validation: tuple[Pair, ...] = ()
    sources: tuple[str, ...] = ()
    """File names, without folders."""
    equal: int = 0
    """Rows left out because both answers are the same."""

    @classmethod
    def read(cls, train: Path, validation: Path | None = None) -> PairData:
        """Read one file, or a folder that holds `train.jsonl` (and `validation.jsonl`).

        Raises:
            InputError: a file cannot be read or holds no pair, or a row is not of a known layout.
        """
        train, validation = split_files(train, validation)
        found = tuple(read_pairs(train))
        rows = tuple(row for row in found if row.chosen != row.rejected)
        if not rows:
            raise InputError("holds no pairs" if not found else "holds no pair whose answers differ", path=train)
        watched = () if validation is None else tuple(p for p in read_pairs(validation) if p.chosen != p.rejected)
        sources = tuple(path.name for path in (train, validation) if path is not None)
        return cls(rows, watched, sources, len(found) - len(rows))

    @property
    def digest(self) -> str:
        """Identifies the pairs, in their order; the file they came from does not matter."""
        return digest([[[p.prompt, p.chosen, p.rejected] for p in split] for split in (self.train, self.validation)])


def read_pairs(path: Path) -> Iterator[Pair]:
    """The pairs of a JSON Lines or Parquet file.

    Raises:
        InputError: names the file, the line (in Parquet: the row, from 1) and the field.
    """
    for line, row in read_table(path):
        yield pair(row, path=path, line=line)


def pair(row: Mapping[str, Any], *, path: Path | None = None, line: int | None = None) -> Pair:
    """The pair that `row` holds."""

    def wrong(message: str, field: str, hint: str | None = None) -> InputError:
        return InputError(message, path=path, line=line, field=field, hint=hint)

    if "chosen" not in row or "rejected" not in row:
        hint = "known: prompt + chosen + rejected | chosen + rejected (whole conversations)"
        raise wrong(f"no preference pair in the keys {', '.join(map(str, row)) or '(none)'}", "", hint)
    sides = {name: _side(row[name], name, wrong) for name in ("chosen", "rejected")}
    if "prompt" in row:
        prompt = _prompt(row["prompt"], wrong)
        for name, turns in sides.items():
            if len(turns) > len(prompt) and turns[: len(prompt)] == prompt:
                sides[name] = turns[len(prompt) :]
    else:
        prompt = sides["chosen"][:-1]
        if prompt != sides["rejected"][:-1]:
            raise wrong("the conversations differ before their last turn", "rejected", "one prompt, two answers")
        sides = {name: turns[-1:] for name, turns in sides.items()}
    if not any(turn["role"] == "user" for turn in prompt):
        raise wrong("the prompt has no user turn", "prompt")
    if prompt[-1]["role"] == "assistant":
        raise wrong("the prompt ends with an assistant turn; the answers should follow a question", "prompt")
    answers: dict[str, str] = {}
    for name, turns in sides.items():
        if len(turns) != 1 or turns[0]["role"] != "assistant":
            roles = " ".join(turn["role"] for turn in turns)
            raise wrong(f"should be one assistant turn after the prompt, not {roles}", name)
        answers[name] = turns[0]["content"]
        if not answers[name].strip():
            raise wrong("the answer is empty", name)
    prompt = with_system(row, prompt, wrong)
    where = ":".join(str(part) for part in (path.name if path else None, line) if part is not None)
    return Pair(tuple(prompt), answers["chosen"], answers["rejected"], where)


def _prompt(value: Any, wrong: Any) -> list[Turn]:
    return turns_of(value, "prompt", wrong) if isinstance(value, list) else [_turn("user", value, "prompt", wrong)]


def _side(value: Any, field: str, wrong: Any) -> list[Turn]:
    return turns_of(value, field, wrong) if isinstance(value, list) else [_turn("assistant", value, field, wrong)]


def _turn(role: str, value: Any, field: str, wrong: Any) -> Turn:
    return {"role": role, "content": text_of(value, field, wrong)}
