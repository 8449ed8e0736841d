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
    thinking_lost: int
    """Training examples whose answer holds reasoning that the chat template takes out."""
    tokens: dict[str, int]
    """Of the training examples: total, trained, longest."""
    example: dict[str, Any]
    """One example as the student sees it: the text with the trained part marked, and its last token."""


_THINKING = re.compile(r"<think>.*?</think>\s*", re.DOTALL)


def prepare(data: TrainData, tokenizer: Any, *, max_length: int, thinking: str = "keep") -> Prepared:
    """Encode both splits.

    Args:
        thinking: `drop` takes `<think>…</think>` out of the answers.

    Raises:
        InputError: a row cannot be rendered, or every row is longer than `max_length`.
    """
    encoder = Encoder(tokenizer)
    rows, watched = (
        [_without_thinking(row) for row in split] if thinking == "drop" else split
        for split in (data.train, data.validation)
    )
    train, dropped, split = _encode(rows, encoder, max_length)
    validation, _, _ = _encode(watched, encoder, max_length)
    if not train:
        raise InputError(
            f"all {dropped} rows are longer than max_length ({max_length} tokens)", hint="raise max_length"
        )
    return Prepared(
        train,
        validation,
        dropped,
        split,
        _lost(rows, train, encoder),
        {
            "total": sum(len(example.input_ids) for example in train),
            "trained": sum(example.trained for example in train),
            "longest": max(len(example.input_ids) for example in train),
        },
        _shown(train[0], encoder),
    )


def _encode(rows: Sequence[Conversation], encoder: Encoder, max_length: int) -> tuple[list[Encoded], int, int]:
    kept: list[Encoded] = []
    dropped = split = 0
    for row in rows:
        examples = encoder(row)
        split += len(examples) > 1
        for example in examples:
            if len(example.input_ids) > max_length:
                dropped += 1
            else:
                kept.append(example)
    return kept, dropped, split


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
