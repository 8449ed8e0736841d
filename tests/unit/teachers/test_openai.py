"""The OpenAI teacher on a real server: every fault ends in its documented class, and no key leaks."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import httpx2
import orjson
import pytest

from distill.errors import AnswerError, FailureClass, TeacherError
from distill.recipe import TeacherConfig
from distill.teachers import Message, Request, SamplingParams
from distill.teachers.openai import OpenAITeacher
from tests.support.faults import FAULTS
from tests.support.loopback import Loopback

CANARY = "sk-canary-5f1e9b0c"
QUESTION = Request("main", (Message("system", "Be brief."), Message("user", "Write one message about a lost card.")))

# What each fault ends in: the class of `failure` or of the error that `send` or `read` raises, or a finish.
DOCUMENTED: dict[str, FailureClass | str] = {
    "429": FailureClass.RATE_LIMITED,
    "429_no_retry_after": FailureClass.RATE_LIMITED,
    "429_daily": FailureClass.RATE_LIMITED,
    "500": FailureClass.OVERLOADED,
    "502_html": FailureClass.OVERLOADED,
    "503": FailureClass.OVERLOADED,
    "529": FailureClass.OVERLOADED,
    "408": FailureClass.TIMEOUT,
    "409": FailureClass.OVERLOADED,
    "timeout": FailureClass.TIMEOUT,
    "slow": FailureClass.TIMEOUT,
    "close_before_reply": FailureClass.CONNECTION,
    "reset_mid_body": FailureClass.CONNECTION,
    "truncated_json": FailureClass.MALFORMED,
    "nan": FailureClass.MALFORMED,
    "duplicate_keys": "stop",
    "wrong_content_type": FailureClass.MALFORMED,
    "not_an_answer": FailureClass.MALFORMED,
    "empty_choices": "empty",
    "empty_text": "empty",
    "refusal": "refusal",
    "content_filter": "filtered",
    "content_filter_400": FailureClass.FILTERED,
    "length": "length",
    "think": "stop",
    "lone_surrogate": FailureClass.UNREADABLE,
    "u2028": "stop",
    "nul": "stop",
    "error_in_200": FailureClass.OVERLOADED,
    "huge": FailureClass.MALFORMED,
    "redirect": FailureClass.BAD_REQUEST,
    "401": FailureClass.AUTH,
    "403": FailureClass.AUTH,
    "insufficient_quota": FailureClass.QUOTA,
    "404": FailureClass.BAD_REQUEST,
    "400": FailureClass.BAD_REQUEST,
    "400_context": FailureClass.CONTEXT,
    "422": FailureClass.BAD_REQUEST,
}


def teacher_at(url: str, transport: Any = None, **fields: Any) -> OpenAITeacher:
    config = TeacherConfig(model=fields.pop("model", "mock"), base_url=url, **fields)
    return OpenAITeacher(config, api_key=CANARY, transport=transport)


async def outcome(teacher: OpenAITeacher, within: float = 0.5) -> tuple[FailureClass | str, str]:
    """What one question ends in, and all the text it produced."""
    try:
        reply = await teacher.send(teacher.wire(QUESTION, 0), timeout=within)
    except TeacherError as error:
        return error.failure, str(error)
    failure = teacher.failure(reply)
    if failure is not None:
        return failure.failure, str(failure)
    try:
        reading = teacher.read(reply.body)
    except AnswerError as error:
        return error.failure, f"{error} {error.raw}"
    return reading.finish, reading.text


def test_every_fault_is_documented() -> None:
    assert DOCUMENTED.keys() == FAULTS.keys()


@pytest.mark.parametrize("fault", DOCUMENTED)
async def test_fault_ends_in_its_class(fault: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    async with Loopback(script=[fault]) as server:
        teacher = teacher_at(server.base_url)
        try:
            ended, text = await outcome(teacher, 5.0 if fault == "huge" else 0.5)
            after, _ = await outcome(teacher)
        finally:
            await teacher.close()
        assert server.hits[fault] == 1
        assert server.received == []
    assert ended == DOCUMENTED[fault], text
    assert after == "stop", "the next request must work"
    assert CANARY not in text
    assert len(text) < 700
    assert CANARY not in caplog.text
    text.encode()


async def test_a_whole_answer_is_read() -> None:
    async with Loopback(record=True) as server:
        teacher = teacher_at(server.base_url, headers={"X-Route": "blue"})
        reply = await teacher.send(teacher.wire(QUESTION, 0), timeout=5)
        reading = teacher.read(reply.body)
        await teacher.close()
        await teacher.close()  # twice is harmless
        headers, body = server.received[0]
    assert reading.finish == "stop"
    assert reading.text.endswith(".")
    assert reading.usage.input == len(body) // 4
    assert reading.usage.output > 10
    assert reading.model == "mock"
    assert headers["authorization"] == f"Bearer {CANARY}"
    assert headers["x-route"] == "blue"
    assert headers["content-type"] == "application/json"
    assert headers["user-agent"].startswith("AsyncOpenAI/Python")
    assert orjson.loads(body) == teacher.wire(QUESTION, 0)
    assert reply.headers["content-type"] == "application/json"


async def test_requests_of_different_lengths_share_a_head() -> None:
    async with Loopback(record=True) as server:
        teacher = teacher_at(server.base_url)
        async with asyncio.TaskGroup() as group:
            for n in range(20):
                wire = {"model": "mock", "messages": [{"role": "user", "content": "x" * n * 50}]}
                group.create_task(teacher.send(wire, timeout=5))
        await teacher.close()
        lengths = sorted(len(orjson.loads(body)["messages"][0]["content"]) for _, body in server.received)
    assert lengths == [n * 50 for n in range(20)]


async def test_connections_are_reused() -> None:
    async with Loopback() as server:
        teacher = teacher_at(server.base_url)
        for _ in range(5):
            await teacher.send(teacher.wire(QUESTION, 0), timeout=5)
        await teacher.close()
        assert server.opened == 1


async def test_a_slow_answer_costs_one_timeout_and_no_hang() -> None:
    async with Loopback(latency=5) as server:
        teacher = teacher_at(server.base_url)
        with pytest.raises(TeacherError) as caught:
            await teacher.send(teacher.wire(QUESTION, 0), timeout=0.1)
        await teacher.close()
    assert caught.value.failure is FailureClass.TIMEOUT


async def test_nobody_listens() -> None:
    async with Loopback() as server:
        url = server.base_url
    teacher = teacher_at(url)
    with pytest.raises(TeacherError) as caught:
        await teacher.send(teacher.wire(QUESTION, 0), timeout=5)
    await teacher.close()
    assert caught.value.failure is FailureClass.CONNECTION
    assert "127.0.0.1" in str(caught.value)


async def test_a_wall_of_sdk_retries_is_not_there() -> None:
    async with Loopback(script=["500", "500", "500"]) as server:
        teacher = teacher_at(server.base_url)
        await teacher.send(teacher.wire(QUESTION, 0), timeout=5)
        await teacher.close()
        assert server.requests == 1


# -- with a doubled provider ---------------------------------------------------------------------------------------


def mocked(status: int, body: bytes, headers: dict[str, str] | None = None, **fields: Any) -> OpenAITeacher:
    def provider(request: httpx2.Request) -> httpx2.Response:
        assert request.headers["authorization"] == f"Bearer {CANARY}"
        return httpx2.Response(status, content=body, headers=headers)

    return teacher_at("https://teacher.example/v1", httpx2.MockTransport(provider), **fields)


async def test_a_key_quoted_by_the_provider_is_masked() -> None:
    body = orjson.dumps({"error": {"message": f"Incorrect API key provided: {CANARY}", "code": "invalid_api_key"}})
    failure, text = await outcome(mocked(401, body, {"content-type": "application/json"}))
    assert failure is FailureClass.AUTH
    assert CANARY not in text
    assert "Incorrect API key provided: ***" in text


async def test_azure_gets_its_query_and_header() -> None:
    seen: list[httpx2.Request] = []

    def provider(request: httpx2.Request) -> httpx2.Response:
        seen.append(request)
        return httpx2.Response(200, json={"choices": []})

    url = "https://mine.openai.azure.com/openai/deployments/gpt-4o?api-version=2025-01-01"
    teacher = teacher_at(url, httpx2.MockTransport(provider), model="o4-mini")
    wire = teacher.wire(QUESTION, 0)
    await teacher.send(wire, timeout=5)
    (request,) = seen
    assert request.url.path == "/openai/deployments/gpt-4o/chat/completions"
    assert request.url.query == b"api-version=2025-01-01"
    assert request.headers["api-key"] == CANARY
    assert wire["max_completion_tokens"] == 1024


async def test_accounts_of_the_environment_stay_at_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_ORG_ID", "org-secret")
    monkeypatch.setenv("OPENAI_PROJECT_ID", "proj-secret")
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/wrong")
    async with Loopback(record=True) as server:
        teacher = teacher_at(server.base_url)
        await teacher.send(teacher.wire(QUESTION, 0), timeout=5)
        await teacher.close()
        headers, _ = server.received[0]
    assert not [value for value in headers.values() if "secret" in value]


# -- the wire ------------------------------------------------------------------------------------------------------

CLOSED = {
    "type": "object",
    "properties": {"b": {"type": "string"}, "a": {"type": "integer"}},
    "required": ["b", "a"],
    "additionalProperties": False,
}


def wire_of(model: str = "mock", url: str | None = "http://127.0.0.1:1/v1", **request: Any) -> dict[str, Any]:
    fields = {name: request.pop(name) for name in ("structured",) if name in request}
    teacher = OpenAITeacher(TeacherConfig(model=model, base_url=url, **fields), api_key="k")
    return teacher.wire(Request("main", QUESTION.messages, **request), 3)


def test_wire_holds_what_was_asked_and_nothing_else() -> None:
    params = SamplingParams(64, 0.8, 0.9, ("END",), 7, {"top_k": 20})
    assert wire_of(params=params) == {
        "model": "mock",
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "Write one message about a lost card."},
        ],
        "max_tokens": 64,
        "temperature": 0.8,
        "top_p": 0.9,
        "stop": ["END"],
        "seed": 7,
        "top_k": 20,
    }


@pytest.mark.parametrize(
    ("model", "url", "name"),
    [
        ("gpt-4o-mini", None, "max_completion_tokens"),
        ("o3", "https://api.openai.com/v1", "max_completion_tokens"),
        ("gpt-5.4-nano", "https://mine.openai.azure.com/openai/v1", "max_completion_tokens"),
        ("gpt-4o", "https://mine.openai.azure.com/openai/v1", "max_tokens"),
        ("openai/gpt-5", "https://openrouter.ai/api/v1", "max_tokens"),
        ("o3-clone", "http://127.0.0.1:8000/v1", "max_tokens"),
    ],
)
def test_the_limit_has_the_name_the_server_knows(model: str, url: str | None, name: str) -> None:
    assert {key for key in wire_of(model, url) if key.startswith("max")} == {name}


def test_a_limit_of_the_users_own_takes_its_place() -> None:
    wire = wire_of(params=SamplingParams(extra={"max_completion_tokens": 5}))
    assert {key: value for key, value in wire.items() if key.startswith("max")} == {"max_completion_tokens": 5}


def test_schema_modes() -> None:
    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "One row!", **CLOSED}
    form = wire_of(schema=schema)["response_format"]
    assert form == {"type": "json_schema", "json_schema": {"name": "One_row", "strict": True, "schema": {
        "title": "One row!", **CLOSED}}}  # fmt: skip
    assert list(form["json_schema"]["schema"]["properties"]) == ["b", "a"]
    loose = wire_of(schema={"type": "object", "properties": {"a": CLOSED, "b": {}}})
    assert loose["response_format"]["json_schema"]["strict"] is False
    words = wire_of(schema=CLOSED, structured="prompt")
    assert "response_format" not in words
    assert '"additionalProperties":false' in words["messages"][-1]["content"]
    mode = wire_of(schema=CLOSED, structured="json_object")
    assert mode["response_format"] == {"type": "json_object"}
    assert "JSON" in mode["messages"][-1]["content"]
