"""Log-probabilities: asked for where the recipe says so, kept with the row, gone where the row's text is hidden."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import orjson
import pytest
from pydantic import ValidationError

from distill.dataset import CardFacts, Row, RowWriter, rows_to_table, write_dataset
from distill.filters.privacy.pii import PiiFilter
from distill.planning import Slot, Topic
from distill.recipe import DatasetConfig, PiiStep, TeacherConfig
from distill.teachers import Message, Request, SamplingParams, TokenLogprob
from distill.teachers.openai import OpenAITeacher
from distill.teachers.reading import read_chat

ANSWER = "It – lost"
CONTENT: list[dict[str, Any]] = [
    {"token": "It", "logprob": -0.1, "bytes": [73, 116], "top_logprobs": [{"token": "It", "logprob": -0.1}]},
    {"token": " \ufffd", "logprob": -0.2, "bytes": [32, 0xE2, 0x80], "top_logprobs": []},
    {"token": "\ufffd", "logprob": -9999.0, "bytes": [0x93], "top_logprobs": [{"token": "x", "logprob": -2.0}]},
    {"token": " lost", "logprob": 0.0001},
]
READ = (
    TokenLogprob("It", -0.1, (("It", -0.1),)),
    TokenLogprob("bytes:\\x20\\xe2\\x80", -0.2),
    TokenLogprob("bytes:\\x93", -9999.0, (("x", -2.0),)),
    TokenLogprob(" lost", 0.0),
)


def body(content: Any, text: str = ANSWER) -> bytes:
    choice = {"message": {"content": text}, "finish_reason": "stop", "logprobs": {"content": content}}
    return orjson.dumps({"choices": [choice]})


def test_they_are_asked_for_where_the_recipe_says_so_and_nowhere_else() -> None:
    teacher = OpenAITeacher(TeacherConfig(model="m", base_url="http://127.0.0.1:1/v1"))
    question = (Message("user", "hi"),)
    wire = teacher.wire(Request("main", question, SamplingParams(top_logprobs=5)), 0)
    assert (wire["logprobs"], wire["top_logprobs"]) == (True, 5)
    assert {"logprobs", "top_logprobs"}.isdisjoint(teacher.wire(Request("main", question), 0))


@pytest.mark.parametrize("teacher", [{"provider": "anthropic"}, {"provider": "local", "engine": "transformers"}])
def test_a_teacher_that_gives_none_is_refused_before_it_is_asked(teacher: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match=r"sampling.top_logprobs: .* gives no log-probabilities"):
        TeacherConfig(model="m", sampling={"top_logprobs": 5}, **teacher)


def test_tokens_that_spell_the_text_are_read_and_the_end_of_the_turn_is_left_out() -> None:
    assert read_chat(body(CONTENT), "m").logprobs == READ
    assert read_chat(body([*CONTENT, {"token": "<|im_end|>", "logprob": -0.1}]), "m").logprobs == READ


@pytest.mark.parametrize(
    "content",
    [CONTENT[:-1], CONTENT[1:], [], None, "x", [{"token": "It"}], [{"token": 3, "logprob": -1}], [{"logprob": -1}]],
)
def test_tokens_of_another_text_are_none(content: Any) -> None:
    reading = read_chat(body(content), "m")
    assert (reading.text, reading.logprobs) == (ANSWER, None)


def row(number: int, answer: str, logprobs: tuple[TokenLogprob, ...] | None) -> Row:
    turns = (Message("user", "Where?"), Message("assistant", answer))
    return Row(f"r-{number}", Slot(f"r-{number}", number, Topic(("cards",))), turns, "main", logprobs=logprobs)


def test_a_row_carries_them_to_the_training_file_and_training_reads_them_there(tmp_path: Path) -> None:
    from distill.train import read_stored

    with RowWriter(tmp_path / "rows.parquet") as writer:
        writer.write(rows_to_table([row(0, ANSWER, READ), row(1, "No.", None)]))
    facts = CardFacts(name="probe", description="", recipe_digest="", planned=2, rejected={}, failed={})
    write_dataset(tmp_path / "rows.parquet", tmp_path / "out", DatasetConfig(validation=0), seed=1, card=facts)
    lines = [orjson.loads(line) for line in (tmp_path / "out/train.jsonl").read_bytes().splitlines()]
    assert [sorted(line) for line in lines] == [["id", "logprobs", "messages"], ["id", "messages"]]
    (told,) = read_stored(tmp_path / "out").values()
    assert b"".join(position.piece for position in told) == ANSWER.encode()
    assert told[0].best == ((b"It", pytest.approx(-0.1)),)
    assert all(math.isfinite(position.log) for position in told)


def test_a_row_with_something_to_hide_loses_its_tokens() -> None:
    secret = "my card is 4111 1111 1111 1111"
    tokens = tuple(TokenLogprob(part, -0.1) for part in ("my card is 4111 1111 ", "1111 1111"))
    table = rows_to_table([row(0, secret, tokens), row(1, ANSWER, READ)])
    made = PiiFilter(PiiStep(kind="pii")).rewrite(table, ["", ""])
    kept = made.columns["logprobs"].to_pylist()
    assert kept[0] is None
    assert kept[1] == table.column("logprobs").to_pylist()[1]
    assert "1111" not in str(made.columns["messages"].to_pylist())
