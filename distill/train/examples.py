"""Rows become examples: rendered, masked, checked and counted, before any weight is loaded."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from distill.errors import InputError
from distill.train.data import Conversation, TrainData, Turn
from distill.train.template import Encoded, Encoder

__all__ = ["Prepared", "prepare"]


@dataclass(frozen=True)
class Prepared:
    """Examples of both splits, and what became of the rows."""

    train: list[Encoded]
    validation: list[Encoded]
    dropped: int
    """Training examples longer than `max_length`."""
    split: int
    """Rows that became one example per answer."""
    divided: int
    """Rows longer than `max_length` that became several conversations."""
    thinking_lost: int
    """Training examples whose answer holds reasoning that the chat template takes out."""
    tokens: dict[str, int]
    """Of the training examples: total, trained, longest."""
    example: dict[str, Any]
    """One example as the student sees it: the text with the trained part marked, and its last token."""

    @property
    def facts(self) -> dict[str, Any]:
        """What a finished training says of its rows."""
        return {
            "rows": len(self.train),
            "validation_rows": len(self.validation),
            "dropped_long": self.dropped,
            "split_rows": self.split,
            "divided_rows": self.divided,
            "thinking_lost": self.thinking_lost,
            "row_tokens": self.tokens,
            "example": self.example,
        }


_THINKING = re.compile(r"<think>.*?</think>\s*", re.DOTALL)


@dataclass
class _Split:
    """Examples of one split, and counts."""

    kept: list[Encoded]
    dropped: int = 0
    split: int = 0
    divided: int = 0


def prepare(
    data: TrainData, tokenizer: Any, *, max_length: int, thinking: str = "keep", long_rows: str = "drop"
) -> Prepared:
    """Encode both splits.

    Args:
        thinking: `drop` takes `<think>…</think>` out of the answers.
        long_rows: `split` divides conversations longer than `max_length` between turns; what then is still too long is
            dropped.

    Raises:
        InputError: a row cannot be rendered, or every row is longer than `max_length`.
    """
    encoder = Encoder(tokenizer)
    rows, watched = (
        [_without_thinking(row) for row in split] if thinking == "drop" else split
        for split in (data.train, data.validation)
    )
    train = _encode(rows, encoder, max_length, divide=long_rows == "split")
    validation = _encode(watched, encoder, max_length, divide=long_rows == "split")
    if not train.kept:
        raise InputError(
            f"all {train.dropped} rows are longer than max_length ({max_length} tokens)", hint="raise max_length"
        )
    return Prepared(
        train.kept,
        validation.kept,
        train.dropped,
        train.split,
        train.divided,
        _lost(rows, train.kept, encoder),
        {
            "total": sum(len(example.input_ids) for example in train.kept),
            "trained": sum(example.trained for example in train.kept),
            "longest": max(len(example.input_ids) for example in train.kept),
        },
        _shown(train.kept[0], encoder),
    )


def _encode(rows: Sequence[Conversation], encoder: Encoder, max_length: int, *, divide: bool) -> _Split:
    found = _Split([])
    for row in rows:
        examples = encoder(row)
        found.split += len(examples) > 1
        if divide and _longest(examples) > max_length:
            pieces = _divide(row, encoder, max_length)
            found.divided += len(pieces) > 1
            examples = [example for piece in pieces for example in piece]
        for example in examples:
            if len(example.input_ids) > max_length:
                found.dropped += 1
            else:
                found.kept.append(example)
    return found


def _divide(row: Conversation, encoder: Encoder, max_length: int) -> list[list[Encoded]]:
    """The examples of each piece of a conversation, the pieces as long as `max_length` lets them be.

    A piece is the system turn and whole exchanges (a question with all that follows up to the next question), so no
    answer is cut and none loses its question. Only what was said in earlier pieces is not seen any more.
    """
    head = row.turns[:1] if row.turns[0]["role"] == "system" else ()
    exchanges: list[tuple[Turn, ...]] = []
    for turn in row.turns[len(head) :]:
        if not exchanges or (turn["role"] == "user" and exchanges[-1][-1]["role"] == "assistant"):
            exchanges.append((turn,))
        else:
            exchanges[-1] += (turn,)
    pieces: list[list[Encoded]] = []
    taken: tuple[Turn, ...] = ()
    for exchange in exchanges:
        longer = encoder(Conversation((*head, *taken, *exchange), row.where))
        if taken and _longest(longer) <= max_length:
            pieces[-1] = longer
            taken += exchange
        else:
            pieces.append(encoder(Conversation((*head, *exchange), row.where)) if taken else longer)
            taken = exchange
    return pieces


def _longest(examples: Sequence[Encoded]) -> int:
    return max(len(example.input_ids) for example in examples)


def _without_thinking(row: Conversation) -> Conversation:
    turns: list[Turn] = []
    for turn in row.turns:
        content = _THINKING.sub("", turn["content"]) if turn["role"] == "assistant" else turn["content"]
        if not content.strip():
            raise InputError(f"{row.where}: nothing is left of an answer without its thinking", field="thinking")
        turns.append({**turn, "content": content})
    return Conversation(tuple(turns), row.where)


def _lost(rows: Sequence[Conversation], examples: Sequence[Encoded], encoder: Encoder) -> int:
    thought = {row.where for row in rows if _THINKING.search(row.turns[-1]["content"])}
    if not thought:
        return 0
    last = {example.where: example for example in examples if example.where in thought}
    return sum("<think>" not in encoder.show(example).rpartition("⟦")[2] for example in last.values())


def _shown(example: Encoded, encoder: Encoder) -> dict[str, Any]:
    last = next(label for label in reversed(example.labels) if label >= 0)
    return {
        "where": example.where,
        "text": encoder.show(example),
        "tokens": len(example.input_ids),
        "trained_tokens": example.trained,
        "ends_with": encoder.tokenizer.decode([last]),
    }
