from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from distill.errors import InputError
from distill.evaluate.holdout import find_leaks, find_repeats, read_holdout
from distill.io import digest
from distill.train.data import Conversation, conversation

ITEM = {"messages": [{"role": "user", "content": "I lost my card!"}], "answer": '{"intent": "lost"}'}


def write(folder: Path, *rows: dict[str, Any]) -> Path:
    path = folder / "test.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return path


def test_items_keep_their_labels_and_get_an_id_from_their_place(tmp_path: Path) -> None:
    labels = {"id": "x", "leaf": ["cards", "lost"], "kind": "injection", "answer": {"b": 1}}
    path = write(tmp_path, ITEM, {**ITEM, **labels})
    first, second = read_holdout(path).items
    assert (first.id, first.leaf, first.kind) == ("1", "", "")
    assert (second.id, second.leaf, second.kind, second.answer) == ("x", "cards/lost", "injection", '{"b":1}')


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ({"messages": ITEM["messages"]}, "answer: this field is needed"),
        ({**ITEM, "answer": None}, "answer: is null"),
        ({**ITEM, "answer": " "}, "answer: is empty"),
        ({"answer": "x"}, "messages: this field is needed"),
        ({"prompt": "I lost my card!", "completion": "x"}, "messages: this field is needed"),
        ({**ITEM, "messages": "I lost my card!"}, "messages: should be a list of turns"),
        ({**ITEM, "messages": [{"role": "system", "content": "Route."}]}, "messages: no user turn"),
        ({**ITEM, "messages": [{"role": "user", "content": " "}]}, "messages.0.content: is empty"),
        ({**ITEM, "messages": [*ITEM["messages"], {"role": "assistant", "content": "x"}]}, "ends with the answer"),
        ({**ITEM, "messages": [{"role": "user"}]}, "messages.0.content: should be text"),
        ({**ITEM, "id": "1"}, "the id '1' stands on line 1 too"),
    ],
)
def test_a_wrong_item_is_named_with_its_line(row: dict[str, Any], says: str, tmp_path: Path) -> None:
    path = write(tmp_path, ITEM, row)
    with pytest.raises(InputError) as caught:
        read_holdout(path)
    assert str(caught.value).startswith(f"{path}:2: ")
    assert says in str(caught.value)


def test_an_answer_is_what_follows_the_thoughts(tmp_path: Path) -> None:
    thought = "<think>\nIt says lost.\n</think>\n\n"
    item = read_holdout(write(tmp_path, {**ITEM, "answer": thought + "lost"})).items[0]
    assert item.answer == "lost"
    with pytest.raises(InputError, match="answer: is empty"):
        read_holdout(write(tmp_path, {**ITEM, "answer": thought}))


def test_the_digest_changes_with_any_answer_and_the_prompts_digest_does_not(tmp_path: Path) -> None:
    one, other = read_holdout(write(tmp_path, ITEM)), read_holdout(write(tmp_path, {**ITEM, "answer": "y"}))
    assert one.digest != other.digest
    assert one.prompts_digest == other.prompts_digest


def test_items_that_stand_in_the_training_rows_are_found(tmp_path: Path) -> None:
    texts = ["I lost my card!", "i LOST my card", "Where is my card?", "my card is gone"]
    rows = [{"messages": [{"role": "user", "content": text}], "answer": "x"} for text in texts]
    holdout = read_holdout(write(tmp_path, *rows))
    seen = Conversation(
        ({"role": "user", "content": "I lost my card!"}, {"role": "assistant", "content": "x"}), "train.jsonl:7"
    )
    leaks = find_leaks(holdout, [seen])
    assert [(leak.id, leak.where, leak.exact) for leak in leaks] == [
        ("1", "train.jsonl:7", True),
        ("2", "train.jsonl:7", False),
    ]


def test_an_id_of_null_is_none(tmp_path: Path) -> None:
    items = read_holdout(write(tmp_path, {**ITEM, "id": None}, {**ITEM, "id": None})).items
    assert [item.id for item in items] == ["1", "2"]


def test_questions_that_are_asked_again_are_found(tmp_path: Path) -> None:
    other = {"messages": [{"role": "user", "content": "Where is it?"}], "answer": "x"}
    holdout = read_holdout(write(tmp_path, ITEM, other, ITEM, {**other, "answer": "y"}, ITEM))
    found = [(each.id, each.first, each.same_answer) for each in find_repeats(holdout)]
    assert found == [("3", "1", True), ("4", "2", False), ("5", "1", True)]


def test_a_question_that_stands_after_an_instruction_is_found(tmp_path: Path) -> None:
    """An Alpaca row holds instruction and input in one turn; the holdout may hold the first as a system turn."""
    text = "I lost my card!\n\nIt was in my bag."
    messages = [{"role": "system", "content": "Route it."}, {"role": "user", "content": text}]
    holdout = read_holdout(write(tmp_path, {"messages": messages, "answer": "x"}))
    row = conversation({"instruction": "Route it.", "input": text, "output": "x"})
    assert [(leak.id, leak.exact) for leak in find_leaks(holdout, [row])] == [("1", False)]
    other = conversation({"instruction": "Route it.", "input": f"{text} Or not.", "output": "x"})
    assert find_leaks(holdout, [other]) == []


def test_what_is_to_be_refused_or_tested_needs_no_answer(tmp_path: Path) -> None:
    question = {"messages": ITEM["messages"]}
    rows = ({**question, "refuse": True}, {**question, "tests": "assert f()"}, {**ITEM, "difficulty": "hard"})
    refuse, tested, hard = read_holdout(write(tmp_path, *rows)).items
    assert (refuse.refuse, refuse.has_answer, refuse.answer) == (True, False, "")
    assert (tested.tests, tested.has_answer) == ("assert f()", False)
    assert (hard.difficulty, hard.has_answer) == ("hard", True)
    with pytest.raises(InputError, match="refuse: should be true or false"):
        read_holdout(write(tmp_path, {**ITEM, "refuse": "yes"}))


def test_new_labels_do_not_change_the_digest_of_holdouts_without_them(tmp_path: Path) -> None:
    plain = read_holdout(write(tmp_path, ITEM))
    (item,) = plain.items
    assert plain.digest == digest([[item.id, item.messages, item.answer, item.leaf, item.kind]])
    assert read_holdout(write(tmp_path, {**ITEM, "difficulty": "hard"})).digest != plain.digest
