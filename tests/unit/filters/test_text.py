from __future__ import annotations

import pyarrow as pa
import pytest

from distill.dataset import ROW_SCHEMA
from distill.filters.text import Absent, parts, present, texts

CHAT = [
    [
        {"role": "system", "content": "be short"},
        {"role": "user", "content": "hello"},
        {"role": "assistant", "content": "hi"},
    ],
    [
        {"role": "user", "content": "one"},
        {"role": "assistant", "content": "two"},
        {"role": "user", "content": "three"},
        {"role": "assistant", "content": "four"},
    ],
]


def test_the_whole_text_leaves_out_the_system_turn():
    rows = pa.table({"messages": CHAT})
    assert texts(rows) == ["hello\nhi", "one\nthree\ntwo\nfour"]
    assert texts(rows, ("messages",))[0] == "be short\nhello\nhi"
    assert parts(rows) == [("prompt", ["hello", "one\nthree"]), ("response", ["hi", "two\nfour"])]


def test_preference_rows_answer_with_the_chosen_text():
    turns = [{"role": "user", "content": "q"}]
    rows = pa.table({"messages": [turns, turns], "chosen": ["good", None], "rejected": ["bad", None]})
    assert texts(rows, ("response",)) == ["good", ""]
    assert texts(rows)[0] == "q\ngood"


def test_slices_and_chunks_of_a_table_read_like_the_whole():
    rows = pa.concat_tables([pa.table({"messages": CHAT}), pa.table({"messages": CHAT[::-1]})])
    whole = texts(rows)
    assert texts(rows.slice(1, 2)) == whole[1:3]
    assert texts(rows.take([3, 0])) == [whole[3], whole[0]]
    assert texts(rows.slice(0, 0)) == []


@pytest.mark.parametrize(
    ("columns", "prompt", "response"),
    [
        ({"prompt": ["a"], "response": ["b"]}, "a", "b"),
        ({"instruction": ["a"], "input": ["x"], "output": ["b"]}, "a\nx", "b"),
        ({"instruction": ["a"], "input": [""], "output": ["b"]}, "a", "b"),
        ({"question": ["a"], "answer": ["b"]}, "a", "b"),
        ({"conversations": [[{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]]}, "a", "b"),
        (
            {
                "prompt": [[{"role": "user", "content": "a"}]],
                "chosen": [[{"role": "assistant", "content": "b"}]],
                "rejected": [[{"role": "assistant", "content": "c"}]],
            },
            "a",
            "b",
        ),
    ],
)
def test_other_layouts_have_a_prompt_and_a_response(columns, prompt, response):
    rows = pa.table(columns)
    assert texts(rows, ("prompt",)) == [prompt]
    assert texts(rows, ("response",)) == [response]


def test_any_text_column_can_be_named_in_any_string_type():
    rows = pa.table(
        {
            "a": pa.array(["x", None], pa.large_string()),
            "b": pa.array(["p", "q"]).dictionary_encode(),
            "n": pa.array([1, 2]),
        }
    )
    assert texts(rows, ("a", "b")) == ["x\np", "q"]
    assert present(rows, ("a", "b")).tolist() == [True, False]
    assert texts(rows) == ["x\np", "q"]  # no usual name: all text columns
    with pytest.raises(Absent, match="int64, not text"):
        texts(rows, ("n",))
    with pytest.raises(Absent, match="no column nosuch"):
        texts(rows, ("nosuch",))


def test_rows_of_a_run_without_rows_are_fine():
    assert texts(ROW_SCHEMA.empty_table()) == []
