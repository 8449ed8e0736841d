"""Rows longer than `max_length` are left out or split between turns; no answer is ever cut."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from distill.errors import InputError
from distill.train import TrainData
from distill.train.data import Conversation, Turn
from distill.train.examples import Prepared, prepare
from distill.train.template import Encoder

SYSTEM: Turn = {"role": "system", "content": "be brief"}


def turn(role: str, content: str) -> Turn:
    return {"role": role, "content": content}


def talk(exchanges: int, *, system: bool = True) -> Conversation:
    turns = [SYSTEM] if system else []
    for number in range(exchanges):
        turns += [turn("user", f"my card {number} was lost"), turn("assistant", f"answer {number} blocked")]
    return Conversation(tuple(turns), "rows.jsonl:1")


def prepared(tokenizer: Any, *rows: Conversation, max_length: int, **options: Any) -> Prepared:
    return prepare(TrainData(rows), tokenizer, max_length=max_length, **options)


def trained(tokenizer: Any, found: Prepared) -> list[str]:
    return [tokenizer.decode([label for label in example.labels if label >= 0]) for example in found.train]


@pytest.mark.parametrize("system", [True, False])
def test_a_long_conversation_is_split_between_turns_each_part_with_the_system_turn(
    tokenizer_with: Callable[..., Any], system: bool
) -> None:
    tokenizer = tokenizer_with()
    row = talk(7, system=system)
    (whole,) = Encoder(tokenizer)(row)
    limit = len(whole.input_ids) // 2
    found = prepared(tokenizer, row, max_length=limit, long_rows="split")
    assert len(found.train) >= 3
    assert all(len(example.input_ids) <= limit for example in found.train)
    assert "".join(trained(tokenizer, found)) == "".join(f"answer {n} blocked<|im_end|>" for n in range(7))
    for example in found.train:
        text = tokenizer.decode(example.input_ids)
        assert text.startswith("<|im_start|>system\nbe brief" if system else "<|im_start|>user")
    assert (found.divided, found.dropped) == (1, 0)


def test_parts_are_as_long_as_they_may_be(tokenizer_with: Callable[..., Any]) -> None:
    tokenizer = tokenizer_with()
    sizes = [len(Encoder(tokenizer)(talk(count))[0].input_ids) for count in (1, 2, 3, 4)]
    found = prepared(tokenizer, talk(4), max_length=sizes[2], long_rows="split")
    assert [len(example.input_ids) for example in found.train] == [sizes[2], sizes[0]]


def test_what_does_not_fit_even_alone_is_counted_and_left_out(tokenizer_with: Callable[..., Any]) -> None:
    tokenizer = tokenizer_with()
    middle = [turn("user", "lost " * 200), turn("assistant", "blocked")]
    row = Conversation((*talk(1).turns, *middle, *talk(1).turns[1:]), "rows.jsonl:1")
    limit = len(Encoder(tokenizer)(talk(2))[0].input_ids)
    found = prepared(tokenizer, row, max_length=limit, long_rows="split")
    assert (len(found.train), found.divided, found.dropped) == (2, 1, 1)
    assert trained(tokenizer, found) == ["answer 0 blocked<|im_end|>"] * 2
    with pytest.raises(InputError, match="all 1 rows are longer"):
        prepared(tokenizer, row, max_length=limit)


def test_a_question_of_several_turns_stays_with_its_answer(tokenizer_with: Callable[..., Any]) -> None:
    tokenizer = tokenizer_with()
    asked = (turn("user", "my card"), turn("user", "was lost"), turn("assistant", "blocked"))
    used = (turn("user", "and now"), turn("tool", "42"), turn("assistant", "wait"))
    (first,), (second,) = (Encoder(tokenizer)(Conversation(part, "r")) for part in (asked, used))
    limit = max(len(first.input_ids), len(second.input_ids))
    found = prepared(tokenizer, Conversation((*asked, *used), "r"), max_length=limit, long_rows="split")
    assert [example.input_ids for example in found.train] == [first.input_ids, second.input_ids]


def test_short_rows_are_as_before(tokenizer_with: Callable[..., Any]) -> None:
    tokenizer = tokenizer_with()
    rows = [talk(1), talk(2), talk(3)]
    kept = prepared(tokenizer, *rows, max_length=1 << 16)
    split = prepared(tokenizer, *rows, max_length=1 << 16, long_rows="split")
    assert kept.train == split.train
    assert split.divided == 0
