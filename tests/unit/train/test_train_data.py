from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distill.errors import InputError
from distill.train.data import TrainData, conversation, read_rows

QUESTION, ANSWER = "Where is my card?", '{"intent": "lost"}'
WANTED = ({"role": "user", "content": QUESTION}, {"role": "assistant", "content": ANSWER})
LAYOUTS: dict[str, dict[str, Any]] = {
    "messages": {"messages": list(WANTED)},
    "sharegpt": {"conversations": [{"from": "human", "value": QUESTION}, {"from": "gpt", "value": ANSWER}]},
    "prompt and completion": {"prompt": QUESTION, "completion": ANSWER},
    "conversational prompt and completion": {"prompt": [WANTED[0]], "completion": [WANTED[1]]},
    "alpaca": {"instruction": QUESTION, "input": "", "output": ANSWER},
    "alpaca without input": {"instruction": QUESTION, "output": ANSWER},
    "text parts": {"messages": [{"role": "user", "content": [{"type": "text", "text": QUESTION}]}, WANTED[1]]},
}


def write(path: Path, *rows: dict[str, Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return path


def test_a_dataset_is_read_through_the_hubs_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder is loaded by the same call as a dataset of the hub."""
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    (tmp_path / "set").mkdir()
    write(tmp_path / "set" / "train.jsonl", LAYOUTS["alpaca"], LAYOUTS["alpaca"])
    write(tmp_path / "set" / "validation.jsonl", LAYOUTS["alpaca without input"])
    name = f"hub:{tmp_path / 'set'}"
    data = TrainData.read(Path(name), Path(f"{name}:validation"))
    assert [row.turns for row in (*data.train, *data.validation)] == [WANTED] * 3
    assert data.train[1].where == "set:2"
    assert data.sources == ("set", "set:validation")
    with pytest.raises(InputError, match="cannot be loaded"):
        TrainData.read(Path(f"{name}:test"))
    with pytest.raises(InputError, match="cannot be loaded"):
        TrainData.read(Path(f"hub:{tmp_path / 'none'}"))
    with pytest.raises(InputError, match="names no dataset"):
        TrainData.read(Path("hub::train"))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_becomes_the_same_conversation(layout: str, tmp_path: Path) -> None:
    (row,) = read_rows(write(tmp_path / "rows.jsonl", LAYOUTS[layout]))
    assert row.turns == WANTED
    assert row.where == "rows.jsonl:1"


def test_parquet_reads_as_jsonl_does(tmp_path: Path) -> None:
    rows = [LAYOUTS["messages"], {"messages": [{"role": "system", "content": "Be brief."}, *WANTED]}]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "rows.parquet")
    from_parquet = [row.turns for row in read_rows(tmp_path / "rows.parquet")]
    from_lines = [row.turns for row in read_rows(write(tmp_path / "rows.jsonl", *rows))]
    assert from_parquet == from_lines


def test_alpaca_input_and_system_are_part_of_the_prompt() -> None:
    row = conversation({"instruction": "Sort", "input": "b a", "output": "a b", "system": "Be brief."})
    assert [turn["content"] for turn in row.turns] == ["Be brief.", "Sort\n\nb a", "a b"]


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ({"messages": [WANTED[0]]}, "no assistant turn"),
        ({"messages": [*WANTED, WANTED[0]]}, "ends with a user turn"),
        ({"messages": [WANTED[1]]}, "starts with the assistant turn"),
        (
            {"messages": [WANTED[0], {"role": "assistant", "content": " "}]},
            "messages.1.content: the assistant turn is empty",
        ),
        ({"messages": [{"role": "bot", "content": "x"}, WANTED[1]]}, "messages.0.role: unknown role 'bot'"),
        ({"messages": [{"role": "user", "content": 3}, WANTED[1]]}, "messages.0.content: should be text, not int"),
        ({"messages": []}, "messages: should be a list of turns"),
        ({"prompt": QUESTION, "chosen": "a", "rejected": "b"}, "preference row"),
        ({"text": "free"}, "no known layout in the keys text"),
    ],
)
def test_what_cannot_be_trained_on_is_named_with_its_line(row: dict[str, Any], says: str, tmp_path: Path) -> None:
    path = write(tmp_path / "rows.jsonl", LAYOUTS["messages"], row)
    with pytest.raises(InputError) as caught:
        list(read_rows(path))
    assert str(caught.value).startswith(f"{path}:2: ")
    assert says in str(caught.value)


def test_an_empty_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no rows"):
        TrainData.read(write(tmp_path / "rows.jsonl"))


def test_a_dataset_folder_gives_both_splits(tmp_path: Path) -> None:
    write(tmp_path / "train.jsonl", LAYOUTS["messages"], LAYOUTS["alpaca"])
    write(tmp_path / "validation.jsonl", LAYOUTS["messages"])
    data = TrainData.read(tmp_path)
    assert (len(data.train), len(data.validation), data.sources) == (2, 1, ("train.jsonl", "validation.jsonl"))


def test_the_digest_is_of_the_rows_and_not_of_the_file(tmp_path: Path) -> None:
    one = TrainData.read(write(tmp_path / "a.jsonl", LAYOUTS["messages"]))
    same = TrainData.read(write(tmp_path / "b.jsonl", LAYOUTS["sharegpt"]))
    other = TrainData.read(write(tmp_path / "c.jsonl", LAYOUTS["messages"], LAYOUTS["messages"]))
    assert one.digest == same.digest != other.digest


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
        max_leaves=8,
    )
)
def test_no_value_of_messages_crashes_the_reader(value: Any) -> None:
    try:
        row = conversation({"messages": value})
    except InputError:
        return
    assert row.turns[-1]["role"] == "assistant"
