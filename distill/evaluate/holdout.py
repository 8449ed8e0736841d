"""The holdout: questions with known answers that nothing was trained on.

One JSON object a line (or Parquet): `messages` ending before the answer, `answer` (text, or a JSON value), and
optionally `id`, `leaf` (text or a path), `kind` and `difficulty`. An item with `"refuse": true` is to be declined, one
with `tests` (Python) is answered by a program: neither needs an answer. The digest of all items is part of every score:
two scores with different digests are not scores on the same thing.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import orjson

from distill.errors import InputError
from distill.io import check_text, digest
from distill.teachers.reading import split_thinking
from distill.train.data import Conversation, read_table

__all__ = ["Holdout", "Item", "Leak", "Repeat", "find_leaks", "find_repeats", "read_holdout"]

_ROLES = ("system", "user", "assistant", "tool")
_FORM = "an item is {messages: [turns that end with the question], answer: text or a JSON value}"


@dataclass(frozen=True, slots=True)
class Item:
    """One question. `answer` is text; an answer given as a JSON value is written in canonical form."""

    id: str
    messages: tuple[dict[str, str], ...]
    answer: str
    leaf: str = ""
    kind: str = ""
    difficulty: str = ""
    refuse: bool = False
    """The right answer is to decline."""
    tests: str = ""
    """Python that an answer's program has to pass."""
    has_answer: bool = True
    """False: no right answer is known, and metrics that compare with it leave the item out."""

    @property
    def further(self) -> dict[str, Any]:
        """What was declared beside the usual; part of the digest where there is any."""
        declared = {"difficulty": self.difficulty, "refuse": self.refuse, "tests": self.tests}
        return {name: value for name, value in declared.items() if value}

    @property
    def question(self) -> str:
        """The user turns as one text."""
        return "\n".join(turn["content"] for turn in self.messages if turn["role"] == "user")


@dataclass(frozen=True)
class Holdout:
    """All items, in the file's order."""

    items: tuple[Item, ...]
    name: str = ""
    """The file's name, without its folder."""

    @property
    def digest(self) -> str:
        """Identifies ids, questions and answers."""
        return digest(
            [[i.id, i.messages, i.answer, i.leaf, i.kind, *([i.further] if i.further else [])] for i in self.items]
        )

    @property
    def prompts_digest(self) -> str:
        """Identifies what is asked: predictions stay good when only answers or labels are corrected."""
        return digest([i.messages for i in self.items])


@dataclass(frozen=True, slots=True)
class Leak:
    """A holdout item whose question stands in the training rows."""

    id: str
    where: str
    """The training row, `file:line`."""
    exact: bool
    """False: equal but for case, punctuation and spacing, or after an instruction."""


@dataclass(frozen=True, slots=True)
class Repeat:
    """An item that asks what an earlier one asks. Counted twice, one question makes every interval too narrow."""

    id: str
    first: str
    """The item that asked before."""
    same_answer: bool
    """False: the two want different answers, and one of them is always wrong."""


def read_holdout(path: Path) -> Holdout:
    """Read and check a holdout file.

    Raises:
        InputError: names file, line and field; also for a file without items and for an id that stands twice.
    """
    items: list[Item] = []
    seen: dict[str, int] = {}
    for line, row in read_table(path):
        item = _item(row, path, line, len(items) + 1)
        if item.id in seen:
            raise InputError(f"the id {item.id!r} stands on line {seen[item.id]} too", path=path, line=line, field="id")
        seen[item.id] = line
        items.append(item)
    if not items:
        raise InputError("holds no items", path=path)
    return Holdout(tuple(items), path.name)


def find_leaks(holdout: Holdout, rows: Iterable[Conversation]) -> list[Leak]:
    """Items of the holdout whose question is asked in a training row: by all its user turns, by one of them, or by what
    follows an instruction and a blank line in one of them."""
    exact: dict[str, str] = {}
    loose: dict[str, str] = {}
    for row in rows:
        turns = [turn["content"] for turn in row.turns if turn["role"] == "user"]
        for text in {*turns, "\n".join(turns)}:
            exact.setdefault(text.strip(), row.where)
            loose.setdefault(_normal(text), row.where)
            for blank in re.finditer(r"\n\s*\n", text):
                loose.setdefault(_normal(text[blank.end() :]), row.where)
    found: list[Leak] = []
    for item in holdout.items:
        question, normal = item.question.strip(), _normal(item.question)
        if question in exact:
            found.append(Leak(item.id, exact[question], True))
        elif normal and normal in loose:
            found.append(Leak(item.id, loose[normal], False))
    return found


def find_repeats(holdout: Holdout) -> list[Repeat]:
    """Items whose turns are those of an earlier item."""
    first: dict[tuple[tuple[str, str], ...], Item] = {}
    found: list[Repeat] = []
    for item in holdout.items:
        known = first.setdefault(tuple((turn["role"], turn["content"]) for turn in item.messages), item)
        if known is not item:
            found.append(Repeat(item.id, known.id, known.answer == item.answer))
    return found


def _item(row: dict[str, Any], path: Path, line: int, number: int) -> Item:
    def wrong(message: str, field: str, hint: str | None = None) -> InputError:
        return InputError(message, path=path, line=line, field=field, hint=hint)

    if "messages" not in row:
        raise wrong(f"this field is needed; the line has: {', '.join(row) or 'nothing'}", "messages", _FORM)
    messages = _messages(row["messages"], wrong)
    if messages[-1]["role"] == "assistant":
        raise wrong("ends with the answer; it should end with the question, and `answer` hold the answer", "messages")
    if not any(turn["role"] == "user" for turn in messages):
        raise wrong("no user turn: nothing is asked", "messages", _FORM)
    refuse, tests = row.get("refuse") or False, row.get("tests") or ""
    if not isinstance(refuse, bool):
        raise wrong("should be true or false", "refuse")
    if not isinstance(tests, str):
        raise wrong("should be text: Python that an answer's program has to pass", "tests")
    answer, free = row.get("answer"), bool(refuse or tests)
    without = 'an item to be declined says `"refuse": true`, one answered by a program has `tests`'
    if "answer" not in row and not free:
        raise wrong(f"this field is needed; the line has: {', '.join(row)}", "answer", without)
    if answer is None and not free:
        raise wrong("is null: there is nothing to compare with", "answer", without)
    if isinstance(answer, str):
        answer, _, _ = split_thinking(answer)  # a prediction is compared without its thoughts, too
        if not answer.strip() and not free:
            raise wrong("is empty: there is nothing to compare with", "answer", without)
    has_answer = not free or answer is not None
    if not has_answer:
        answer = ""
    if not isinstance(answer, str):
        answer = orjson.dumps(answer, option=orjson.OPT_SORT_KEYS).decode()
    leaf = row.get("leaf") or ""
    if isinstance(leaf, list):
        leaf = "/".join(str(part) for part in cast("list[Any]", leaf))
    return Item(
        id=str(number if row.get("id") is None else row["id"]),
        messages=tuple(messages),
        answer=answer,
        leaf=str(leaf),
        kind=str(row.get("kind") or ""),
        difficulty=str(row.get("difficulty") or ""),
        refuse=refuse,
        tests=tests,
        has_answer=has_answer,
    )


def _messages(value: Any, wrong: Any) -> Sequence[dict[str, str]]:
    if not isinstance(value, list) or not value:
        raise wrong("should be a list of turns", "messages")
    turns: list[dict[str, str]] = []
    for position, item in enumerate(cast("list[Any]", value)):
        here = f"messages.{position}"
        if not isinstance(item, dict):
            raise wrong("a turn should be an object with `role` and `content`", here)
        turn = cast("dict[str, Any]", item)
        if turn.get("role") not in _ROLES:
            raise wrong(f"unknown role {turn.get('role')!r}; known: {', '.join(_ROLES)}", f"{here}.role")
        if not isinstance(turn.get("content"), str):
            raise wrong("should be text", f"{here}.content")
        if turn["role"] == "user" and not turn["content"].strip():
            raise wrong("is empty", f"{here}.content")
        check_text(turn["content"])
        turns.append({"role": turn["role"], "content": turn["content"]})
    return turns


def _normal(text: str) -> str:
    return " ".join(re.findall(r"\w+", unicodedata.normalize("NFKC", text).casefold()))
