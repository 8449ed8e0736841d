"""The endpoint: who may ask, what it refuses, what clients get."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("starlette")
from starlette.testclient import TestClient

from distill.release.app import make_app
from distill.release.record import Release
from distill.release.registry import Listed
from distill.release.serving import Answer, Sampling, TooLong

RELEASE = Release(
    name="router",
    version=2,
    created="2026-01-01T00:00:00Z",
    kind="adapter",
    weights="adapter",
    weights_digest="0123456789abcdef0123",
    base="tiny",
    template="t",
)


@dataclass
class Echo:
    """Answers with the last turn."""

    listed: Listed = field(default_factory=lambda: Listed(RELEASE, Path("x"), True))
    asked: list[tuple[list[dict[str, str]], Sampling]] = field(default_factory=list)

    async def answer(self, messages: Sequence[dict[str, str]], sampling: Sampling) -> Answer:
        self.asked.append((list(messages), sampling))
        if messages[-1]["content"] == "long":
            raise TooLong("too long")
        return Answer(messages[-1]["content"], "stop", 3, 2, "well" if messages[-1]["content"] == "think" else "")


def client(echo: Echo, key: str | None = None) -> TestClient:
    app = make_app({"router": echo, "other": Echo()}, key=key, hosts=("127.0.0.1", "localhost"))
    return TestClient(app, base_url="http://127.0.0.1:8000")


def body(text: str = "hi", **more: Any) -> dict[str, Any]:
    return {"model": "router", "messages": [{"role": "user", "content": text}], **more}


def test_an_answer_has_the_shape_clients_expect() -> None:
    echo = Echo()
    answer = client(echo).post("/v1/chat/completions", json=body(max_tokens=5, user="x")).json()
    assert answer["choices"][0]["message"] == {"role": "assistant", "content": "hi"}
    assert answer["choices"][0]["finish_reason"] == "stop"
    assert answer["usage"] == {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
    assert answer["object"] == "chat.completion"
    assert echo.asked[0][1] == Sampling(5)  # greedy, unless a request asks for more


def test_thoughts_stand_beside_the_answer() -> None:
    answer = client(Echo()).post("/v1/chat/completions", json=body("think")).json()
    message = {"role": "assistant", "content": "think", "reasoning_content": "well"}
    assert answer["choices"][0]["message"] == message


def test_parts_and_the_newer_names_are_understood() -> None:
    echo = Echo()
    turns = [
        {"role": "developer", "content": "be short"},
        {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
    ]
    client(echo).post(
        "/v1/chat/completions",
        json={"model": "router", "messages": turns, "max_completion_tokens": 7, "temperature": 0.5, "seed": 1},
    )
    assert echo.asked == [
        ([{"role": "system", "content": "be short"}, {"role": "user", "content": "ab"}], Sampling(7, 0.5, 1.0, 1))
    ]


def test_a_stream_ends_as_streams_do() -> None:
    answer = client(Echo()).post("/v1/chat/completions", json=body(stream=True))
    assert answer.headers["content-type"].startswith("text/event-stream")
    events = [line.removeprefix("data: ") for line in answer.text.splitlines() if line]
    assert events[-1] == "[DONE]"
    first, last = (json.loads(event)["choices"][0] for event in events[:2])
    assert first["delta"]["content"] == "hi"
    assert last["finish_reason"] == "stop"


def test_the_requests_own_stops_cut() -> None:
    answer = client(Echo()).post("/v1/chat/completions", json=body("one two three", stop=["three", " two"])).json()
    assert answer["choices"][0]["message"]["content"] == "one"


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"n": 2}, "n"),
        ({"tools": [{"type": "function"}]}, "tools"),
        ({"response_format": {"type": "json_object"}}, "response_format.type"),
        ({"messages": []}, "messages"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"temperature": 3}, "temperature"),
        ({"logprobs": True}, "logprobs"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages.0.role"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "messages.0.content"),
    ],
)
def test_what_is_not_done_is_refused(change: dict[str, Any], field: str) -> None:
    answer = client(Echo()).post("/v1/chat/completions", json={**body(), **change})
    assert answer.status_code == 400
    assert answer.json()["error"]["param"].startswith(field)


def test_errors_are_the_clients_kind_of_errors() -> None:
    here = client(Echo())
    missing = here.post("/v1/chat/completions", json={**body(), "model": "rooter"})
    assert missing.status_code == 404
    assert "served are: router, other" in missing.json()["error"]["message"]
    assert here.post("/v1/chat/completions", json=body("long")).json()["error"]["code"] == "context_length_exceeded"
    assert here.post("/v1/chat/completions", content=b'{"a": NaN}').status_code == 400
    assert here.post("/v1/chat/completions", content=b"x" * (3 << 20)).status_code == 400
    assert here.get("/v1/chat/completions").status_code == 405


def test_a_key_is_asked_of_every_request() -> None:
    here = client(Echo(), key="a-key-of-sixteen")
    assert here.get("/v1/models").status_code == 401
    assert here.post("/v1/chat/completions", json=body()).status_code == 401
    wrong = {"Authorization": "Bearer a-key-of-sixteeN"}
    assert here.post("/v1/chat/completions", json=body(), headers=wrong).status_code == 401
    right = {"Authorization": "Bearer a-key-of-sixteen"}
    models = here.get("/v1/models", headers=right).json()["data"]
    assert [model["id"] for model in models] == ["router", "other"]
    assert models[0]["release"] == "router@2"
    assert here.get("/health").status_code == 200


def test_another_hosts_name_is_refused() -> None:
    answer = client(Echo()).post("/v1/chat/completions", json=body(), headers={"Host": "evil.example"})
    assert answer.status_code == 400
    assert "router" not in answer.text
