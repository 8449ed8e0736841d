"""The Anthropic teacher on a real server and on a doubled one."""

from __future__ import annotations

import logging
from typing import Any

import orjson
import pytest

from distill.errors import AnswerError, FailureClass, TeacherError
from distill.recipe import TeacherConfig
from distill.teachers import Message, Request, SamplingParams, Usage
from distill.teachers.anthropic import AnthropicTeacher, read_message
from tests.support.faults import FAULTS
from tests.support.loopback import Loopback

CANARY = "sk-ant-canary-77aa"
QUESTION = Request("main", (Message("system", "Be brief."), Message("user", "Write one message.")))

# Where it differs from the chat completions of `test_openai.DOCUMENTED`, which see.
DOCUMENTED: dict[str, FailureClass | str] = {
    "429": FailureClass.RATE_LIMITED,
    "500": FailureClass.OVERLOADED,
    "529": FailureClass.OVERLOADED,
    "timeout": FailureClass.TIMEOUT,
    "close_before_reply": FailureClass.CONNECTION,
    "reset_mid_body": FailureClass.CONNECTION,
    "truncated_json": FailureClass.MALFORMED,
    "nan": FailureClass.MALFORMED,
    "wrong_content_type": FailureClass.MALFORMED,
    "not_an_answer": FailureClass.MALFORMED,
    "huge": FailureClass.MALFORMED,
    "redirect": FailureClass.BAD_REQUEST,
    "empty_choices": "empty",
    "refusal": "refusal",
    "content_filter": "refusal",
    "content_filter_400": FailureClass.FILTERED,
    "length": "length",
    "lone_surrogate": FailureClass.UNREADABLE,
    "u2028": "stop",
    "think": "stop",
    "duplicate_keys": "stop",
    "401": FailureClass.AUTH,
    "403": FailureClass.AUTH,
    "insufficient_quota": FailureClass.QUOTA,
    "400": FailureClass.BAD_REQUEST,
    "404": FailureClass.BAD_REQUEST,
}


def teacher(url: str = "http://127.0.0.1:1", **fields: Any) -> AnthropicTeacher:
    return AnthropicTeacher(TeacherConfig(provider="anthropic", model="mock", base_url=url, **fields), api_key=CANARY)


@pytest.mark.parametrize("fault", DOCUMENTED)
async def test_fault_ends_in_its_class(fault: str, caplog: pytest.LogCaptureFixture) -> None:
    assert fault in FAULTS
    caplog.set_level(logging.DEBUG)
    async with Loopback(script=[fault]) as server:
        asked = teacher(server.anthropic_url)
        text = ""
        try:
            reply = await asked.send(asked.wire(QUESTION, 0), timeout=5.0 if fault == "huge" else 0.5)
            failure = asked.failure(reply)
            if failure is not None:
                raise failure
            reading = asked.read(reply.body)
            ended: FailureClass | str = reading.finish
        except (TeacherError, AnswerError) as error:
            ended, text = error.failure, str(error)
        again = await asked.send(asked.wire(QUESTION, 0), timeout=5)
        await asked.close()
    assert ended == DOCUMENTED[fault], text
    assert asked.failure(again) is None
    assert CANARY not in text
    assert CANARY not in caplog.text


@pytest.mark.parametrize("suffix", ["", "/", "/v1", "/v1/"])
async def test_the_address_works_with_and_without_its_version(suffix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-ant-another")
    monkeypatch.setenv("ANTHROPIC_AUTH_TOKEN", "token")
    async with Loopback(record=True) as server:
        asked = teacher(server.anthropic_url + suffix)
        reply = await asked.send(asked.wire(QUESTION, 0), timeout=5)
        await asked.close()
        headers, body = server.received[0]
    assert asked.failure(reply) is None
    assert asked.read(reply.body).text.endswith(".")
    assert (headers["authorization"], headers["x-api-key"]) == (f"Bearer {CANARY}", CANARY)
    assert "anthropic-version" in headers
    assert orjson.loads(body) == asked.wire(QUESTION, 0)


# -- the wire ------------------------------------------------------------------------------------------------------


def test_the_system_turn_is_the_cached_prefix() -> None:
    params = SamplingParams(64, 0.5, 0.9, ("END",), 7, {"top_k": 20})
    assert teacher().wire(Request("main", QUESTION.messages, params), 5) == {
        "model": "mock",
        "max_tokens": 64,
        "system": [{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}}],
        "messages": [{"role": "user", "content": "Write one message."}],
        "temperature": 0.5,
        "top_p": 0.9,
        "stop_sequences": ["END"],
        "top_k": 20,
    }


def test_worked_examples_are_cached_too() -> None:
    roles = ("user", "assistant", "user", "assistant", "user")
    messages = tuple(Message(role, str(n)) for n, role in enumerate(roles))
    sent = teacher().wire(Request("main", messages), 0)["messages"]
    assert sent[3]["content"] == [{"type": "text", "text": "3", "cache_control": {"type": "ephemeral"}}]
    assert sent[4] == {"role": "user", "content": "4"}
    correction = teacher().wire(Request("main", messages[:3]), 0)
    assert "cache_control" not in str(correction)


def test_schema_modes() -> None:
    schema = {
        "$schema": "x",
        "type": "object",
        "properties": {"n": {"type": "integer", "minimum": 1}},
        "required": ["n"],
    }
    form = teacher().wire(Request("main", QUESTION.messages, schema=schema), 0)["output_config"]["format"]
    assert form["type"] == "json_schema"
    assert form["schema"]["additionalProperties"] is False
    assert "minimum" not in form["schema"]["properties"]["n"]
    words = teacher(structured="prompt").wire(Request("main", QUESTION.messages, schema=schema), 0)
    assert "output_config" not in words
    assert '"minimum":1' in words["messages"][-1]["content"]
    beyond = teacher().wire(Request("main", QUESTION.messages, schema={"properties": {}}), 0)
    assert "output_config" not in beyond
    assert "JSON Schema" in beyond["messages"][-1]["content"]


async def test_the_server_satisfies_a_schema() -> None:
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    async with Loopback() as server:
        asked = teacher(server.anthropic_url)
        wire = asked.wire(Request("main", QUESTION.messages, schema=schema), 0)
        reply = await asked.send(wire, timeout=5)
        await asked.close()
    assert isinstance(orjson.loads(asked.read(reply.body).text)["n"], int)


# -- reading -------------------------------------------------------------------------------------------------------


def message(*content: dict[str, Any], stop: str = "end_turn", **fields: Any) -> bytes:
    return orjson.dumps({"type": "message", "model": "m", "content": list(content), "stop_reason": stop, **fields})


def test_thinking_stands_apart_and_usage_is_whole() -> None:
    usage = {
        "input_tokens": 10,
        "cache_creation_input_tokens": 100,
        "cache_read_input_tokens": 1000,
        "output_tokens": 50,
        "output_tokens_details": {"thinking_tokens": 30},
    }
    body = message(
        {"type": "thinking", "thinking": "2+2", "signature": "xx"},
        {"type": "redacted_thinking", "data": "yy"},
        {"type": "text", "text": "4"},
        {"type": "text", "text": "!"},
        usage=usage,
    )
    reading = read_message(body, "asked")
    assert (reading.text, reading.reasoning, reading.finish, reading.model) == ("4!", "2+2", "stop", "m")
    assert reading.usage == Usage(1110, 50, cached=1000, cache_write=100, reasoning=30)


@pytest.mark.parametrize(
    ("stop", "text", "finish"),
    [
        ("end_turn", "x", "stop"),
        ("stop_sequence", "x", "stop"),
        ("max_tokens", "x", "length"),
        ("model_context_window_exceeded", "x", "length"),
        ("refusal", "x", "refusal"),
        ("pause_turn", "x", "length"),
        ("tool_use", "", "empty"),
        ("end_turn", "", "empty"),
        ("something_new", "x", "stop"),
    ],
)
def test_finish(stop: str, text: str, finish: str) -> None:
    assert read_message(message({"type": "text", "text": text}, stop=stop), "m").finish == finish


def test_a_refusal_says_why() -> None:
    body = message(stop="refusal", stop_details={"type": "refusal", "explanation": "Not this."})
    assert read_message(body, "m").text == "Not this."


@pytest.mark.parametrize("body", [b"{}", b"[]", b"nonsense", b'{"type":"error","content":[]}', b'{"content":7}'])
def test_what_is_no_message_is_malformed(body: bytes) -> None:
    with pytest.raises(AnswerError) as caught:
        read_message(body, "m")
    assert caught.value.failure is FailureClass.MALFORMED
