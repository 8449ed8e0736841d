"""What stands in a provider's results file, read line by line, whatever stands in it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from distill.errors import AnswerError, FailureClass
from distill.recipe import TeacherConfig
from distill.teachers import Result, make_batches, make_teacher

MESSAGE = {"id": "m", "object": "chat.completion", "model": "mock", "choices": [{"message": {"content": "hi"}}]}


def teacher(provider: str) -> TeacherConfig:
    return TeacherConfig.model_validate(
        {"provider": provider, "model": "mock", "base_url": "http://127.0.0.1:1/v1", "api_key": "k"}
    )


def read(folder: Path, provider: str, *lines: str) -> list[Result]:
    path = folder / "results"
    path.write_bytes("\n".join(lines).encode("utf-8", "surrogatepass"))
    return list(make_batches("main", teacher(provider)).results(path))


def openai_line(name: str, **members: Any) -> str:
    return json.dumps({"id": "b", "custom_id": name, "response": None, "error": None, **members})


def test_an_openai_file_holds_answers_refusals_and_what_never_ran(tmp_path: Path) -> None:
    good, bad, late = read(
        tmp_path,
        "openai",
        openai_line("r-a", response={"status_code": 200, "body": MESSAGE}),
        openai_line("r-b", response={"status_code": 400, "body": {"error": {"code": "x", "message": "no"}}}),
        openai_line("r-c", error={"code": "batch_expired", "message": "late"}),
    )
    asked = make_teacher("main", teacher("openai"))
    assert good.reply is not None
    assert asked.failure(good.reply) is None
    assert asked.read(good.reply.body).text == "hi"
    assert bad.reply is not None
    failure = asked.failure(bad.reply)
    assert failure is not None
    assert failure.failure is FailureClass.BAD_REQUEST
    assert late == Result("r-c", None, "batch_expired")


def test_an_anthropic_file_holds_all_four_kinds(tmp_path: Path) -> None:
    def line(name: str, **result: Any) -> str:
        return json.dumps({"custom_id": name, "result": result})

    message = {"type": "message", "model": "m", "content": [{"type": "text", "text": "hi"}], "stop_reason": "end_turn"}
    overloaded = {"type": "error", "error": {"type": "overloaded_error", "message": "busy"}}
    good, busy, late, stopped = read(
        tmp_path,
        "anthropic",
        line("r-a", type="succeeded", message=message),
        line("r-b", type="errored", error=overloaded),
        line("r-c", type="expired"),
        line("r-d", type="canceled"),
    )
    asked = make_teacher("main", teacher("anthropic"))
    assert good.reply is not None
    assert asked.read(good.reply.body).text == "hi"
    assert busy.reply is not None
    failure = asked.failure(busy.reply)
    assert failure is not None
    assert failure.failure is FailureClass.OVERLOADED
    assert (late.why, stopped.why) == ("expired", "canceled")


def test_a_line_that_cannot_be_read_is_a_request_without_a_result(tmp_path: Path) -> None:
    whole = openai_line("r-a", response={"status_code": 200, "body": MESSAGE})
    found = read(tmp_path, "openai", "not json", whole, "", whole[:40], '{"custom_id": 7}', "[]")
    assert [result.custom_id for result in found] == ["r-a"]


def test_half_a_surrogate_pair_is_an_answer_that_no_file_could_hold(tmp_path: Path) -> None:
    body = {**MESSAGE, "choices": [{"message": {"content": "half \ud83d"}}]}
    (found,) = read(tmp_path, "openai", openai_line("r-a", response={"status_code": 200, "body": body}))
    asked = make_teacher("main", teacher("openai"))
    assert found.reply is not None
    assert asked.failure(found.reply) is None
    with pytest.raises(AnswerError) as caught:
        asked.read(found.reply.body)
    assert caught.value.failure is FailureClass.UNREADABLE


def test_u2028_ends_no_line(tmp_path: Path) -> None:
    body = {**MESSAGE, "choices": [{"message": {"content": "one\u2028line"}}]}
    line = json.dumps(
        {"custom_id": "r-a", "response": {"status_code": 200, "body": body}, "error": None}, ensure_ascii=False
    )
    (found,) = read(tmp_path, "openai", line)
    assert found.reply is not None
    assert make_teacher("main", teacher("openai")).read(found.reply.body).text == "one\u2028line"
