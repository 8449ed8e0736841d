"""Training rows from any of the layouts people have.

A row is read from JSON Lines, Parquet or a dataset of the hub in one of four layouts, told apart by its keys:

    messages                          [{"role": "user", "content": …}, {"role": "assistant", "content": …}]
    conversations                     [{"from": "human", "value": …}, {"from": "gpt", "value": …}]     (ShareGPT)
    prompt, completion                both text, or both lists of messages
    instruction, input, output        text; `input` and `system` may be missing                        (Alpaca)

All become the same thing: a conversation that holds at least one assistant turn. What cannot is an error that
names file, line and field; nothing is skipped in silence.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

from distill.errors import InputError
from distill.io import check_text, digest, read_jsonl
from distill.io.hub import HUB, hub_name, hub_tables

__all__ = [
    "Conversation",
    "TrainData",
    "Turn",
    "conversation",
    "read_rows",
    "read_table",
    "split_files",
    "text_of",
    "turns_of",
    "with_system",
]

Turn = dict[str, str]
"""`role` and `content`."""

_ROLES = ("system", "user", "assistant", "tool")
_SHAREGPT = {"human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant", "system": "system"}
_LAYOUTS = "messages | conversations | prompt + completion | instruction (+ input) + output"


@dataclass(frozen=True, slots=True)
class Conversation:
    """One row: its turns and where it was read (`file:line`)."""

    turns: tuple[Turn, ...]
    where: str = ""

    @property
    def prompt(self) -> tuple[Turn, ...]:
        """The turns before the last assistant turn."""
        last = max(i for i, turn in enumerate(self.turns) if turn["role"] == "assistant")
        return self.turns[:last]


@dataclass(frozen=True)
class TrainData:
    """What a student is trained on, and the rows its loss is watched on."""

    train: tuple[Conversation, ...]
    validation: tuple[Conversation, ...] = ()
    sources: tuple[str, ...] = ()
    """File names, without folders."""
    general: int = 0
    """Training rows that are general data."""

    def mixed(self, general: Iterable[Conversation], source: str) -> TrainData:
        """These rows and general ones after them, of the file `source`."""
        rows = tuple(general)
        return replace(self, train=(*self.train, *rows), sources=(*self.sources, source), general=len(rows))

    @classmethod
    def read(cls, train: Path, validation: Path | None = None) -> TrainData:
        """Read one file, or a folder that holds `train.jsonl` (and `validation.jsonl`).

        Raises:
            InputError: a file cannot be read, is empty, or a row is not of a known layout.
        """
        train, validation = split_files(train, validation)
        rows = tuple(read_rows(train))
        if not rows:
            raise InputError("holds no rows", path=train)
        watched = tuple(read_rows(validation)) if validation is not None else ()
        return cls(rows, watched, tuple(path.name for path in (train, validation) if path is not None))

    @property
    def digest(self) -> str:
        """Identifies the rows, in their order; the file they came from does not matter."""
        return digest([[row.turns for row in self.train], [row.turns for row in self.validation]])


def split_files(train: Path, validation: Path | None = None) -> tuple[Path, Path | None]:
    """The files of both splits, where `train` is one file or a folder with `train.jsonl` (and `validation.jsonl`)."""
    if not train.is_dir():
        return train, validation
    found = [train / f"train{ending}" for ending in (".jsonl", ".parquet")]
    if validation is None:
        also = [train / f"validation{ending}" for ending in (".jsonl", ".parquet")]
        validation = next((path for path in also if path.is_file() and path.stat().st_size > 0), None)
    return next((path for path in found if path.is_file()), found[0]), validation


def read_rows(path: Path) -> Iterator[Conversation]:
    """The rows of a JSON Lines or Parquet file.

    Raises:
        InputError: names the file, the line (in Parquet: the row, from 1) and the field.
    """
    for line, row in read_table(path):
        yield conversation(row, path=path, line=line)


def read_table(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """(line from 1, row) of a `.parquet` file, of a dataset of the hub, or of JSON Lines whatever the ending."""
    if str(path).startswith(HUB):
        yield from _read_hub(str(path))
        return
    if path.suffix != ".parquet":
        yield from read_jsonl(path)
        return
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(path, pre_buffer=False)
        number = 0
        for batch in file.iter_batches(batch_size=1024):  # pyright: ignore[reportUnknownMemberType]
            for row in batch.to_pylist():
                number += 1
                yield number, {key: value for key, value in row.items() if value is not None}
    except (OSError, pa.ArrowException) as error:
        raise InputError(f"cannot be read as Parquet: {error}", path=path) from None


def _read_hub(path: str) -> Iterator[tuple[int, dict[str, Any]]]:
    name, config, split = hub_name(path)
    number = 0
    for table in hub_tables(name, config=config, split=split or "train"):
        for row in table.to_pylist():
            number += 1
            yield number, {key: value for key, value in row.items() if value is not None}


def conversation(row: Mapping[str, Any], *, path: Path | None = None, line: int | None = None) -> Conversation:
    """The conversation that `row` holds, in whichever layout."""

    def wrong(message: str, field: str, hint: str | None = None) -> InputError:
        return InputError(message, path=path, line=line, field=field, hint=hint)

    if "messages" in row:
        turns = turns_of(row["messages"], "messages", wrong)
    elif "conversations" in row:
        turns = turns_of(row["conversations"], "conversations", wrong)
    elif "chosen" in row and "rejected" in row:
        raise wrong("a preference row has no one answer to train on", "chosen", "`--method dpo` trains on pairs")
    elif "prompt" in row and "completion" in row:
        turns = _prompt_completion(row, wrong)
    elif "instruction" in row and "output" in row:
        turns = _alpaca(row, wrong)
    else:
        raise wrong(f"no known layout in the keys {', '.join(map(str, row)) or '(none)'}", "", f"known: {_LAYOUTS}")
    roles = [turn["role"] for turn in turns]
    if "assistant" not in roles:
        raise wrong("no assistant turn: there is nothing to learn", "messages")
    if roles[-1] != "assistant":
        raise wrong(f"ends with a {roles[-1]} turn; the answer should come last", "messages")
    if roles[0] == "assistant":
        raise wrong("starts with the assistant turn; the question should come first", "messages")
    for position, turn in enumerate(turns):
        if turn["role"] == "assistant" and not turn["content"].strip():
            raise wrong("the assistant turn is empty", f"messages.{position}.content")
    where = ":".join(str(part) for part in (path.name if path else None, line) if part is not None)
    return Conversation(tuple(turns), where)


def turns_of(value: Any, field: str, wrong: Any) -> list[Turn]:
    """`value` as turns; `wrong` makes the error of a message and a field."""
    if not isinstance(value, list) or not value:
        raise wrong("should be a list of turns", field)
    turns: list[Turn] = []
    for position, item in enumerate(cast("list[Any]", value)):
        here = f"{field}.{position}"
        if not isinstance(item, dict):
            raise wrong("a turn should be an object with `role` and `content`", here)
        turn = cast("dict[str, Any]", item)
        role, content = turn.get("role", turn.get("from")), turn.get("content", turn.get("value"))
        role = _SHAREGPT.get(str(role), role) if field == "conversations" else role
        if role not in _ROLES:
            raise wrong(f"unknown role {role!r}; known: {', '.join(_ROLES)}", f"{here}.role")
        turns.append({"role": str(role), "content": text_of(content, f"{here}.content", wrong)})
    return turns


def _prompt_completion(row: Mapping[str, Any], wrong: Any) -> list[Turn]:
    turns: list[Turn] = []
    for field, role in (("prompt", "user"), ("completion", "assistant")):
        if isinstance(row[field], list):
            turns += turns_of(row[field], field, wrong)
        else:
            turns.append({"role": role, "content": text_of(row[field], field, wrong)})
    return with_system(row, turns, wrong)


def _alpaca(row: Mapping[str, Any], wrong: Any) -> list[Turn]:
    parts = [text_of(row["instruction"], "instruction", wrong)]
    if row.get("input"):
        parts.append(text_of(row["input"], "input", wrong))
    turns: list[Turn] = [
        {"role": "user", "content": "\n\n".join(parts)},
        {"role": "assistant", "content": text_of(row["output"], "output", wrong)},
    ]
    return with_system(row, turns, wrong)


def with_system(row: Mapping[str, Any], turns: list[Turn], wrong: Any) -> list[Turn]:
    """`turns` after the row's `system`, where it has one."""
    if row.get("system") and turns[0]["role"] != "system":
        return [{"role": "system", "content": text_of(row["system"], "system", wrong)}, *turns]
    return turns


def text_of(value: Any, field: str, wrong: Any) -> str:
    """`value` as text that can be written to a file."""
    if isinstance(value, list):  # the parts form that OpenAI's files use: text parts only
        parts = cast("list[Any]", value)
        texts: list[Any] = [cast("dict[str, Any]", part).get("text") if isinstance(part, dict) else 0 for part in parts]
        if texts and all(isinstance(text, str) for text in texts):
            return text_of("".join(texts), field, wrong)
        raise wrong("should be text, or a list of text parts", field)
    if not isinstance(value, str):
        raise wrong(f"should be text, not {type(value).__name__}", field)
    try:
        check_text(value)
    except InputError as error:
        raise wrong(error.message, field) from None
    return value
