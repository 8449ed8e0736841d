"""Anthropic's Messages API.

The system turns travel apart from the messages and carry a cache breakpoint: they are the stable prefix of a run's
requests (the provider ignores a breakpoint on a prefix too short to cache). Requests with worked examples, two or more
earlier exchanges, get a second one behind the last example.

Structure is asked for with `output_config.format`, the schema adapted by the SDK's own `transform_schema`; under
`structured: prompt` or `json_object`, and for schemas that the API cannot take, in words.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast
from urllib.parse import urlsplit, urlunsplit

import httpx2

from distill.errors import AnswerError, FailureClass
from distill.teachers.base import Finish, Reading, Request, Usage
from distill.teachers.http import HttpTeacher, SdkClient, in_words
from distill.teachers.reading import checked, envelope, split_thinking, tokens

__all__ = ["DEFAULT_URL", "AnthropicTeacher", "read_message"]

DEFAULT_URL = "https://api.anthropic.com"

_BREAKPOINT = {"type": "ephemeral"}
_FINISH: dict[str, Finish] = {
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "pause_turn": "length",
    "refusal": "refusal",
}
"""Stop reasons that are not a normal end (`end_turn`, `stop_sequence`, `tool_use`)."""


class AnthropicTeacher(HttpTeacher):
    """A model behind the Messages API."""

    provider: str = "anthropic"

    def wire(self, request: Request, sample: int) -> dict[str, Any]:
        """The body of the request. `sample` does not enter it: the provider draws by itself."""
        params = request.params
        system = [{"type": "text", "text": message.content} for message in request.messages if message.role == "system"]
        turns = [message for message in request.messages if message.role != "system"]
        messages: list[dict[str, Any]] = [{"role": turn.role, "content": turn.content} for turn in turns]
        wire: dict[str, Any] = {"model": self.model, "max_tokens": params.max_tokens, "messages": messages}
        if system:
            wire["system"] = [*system[:-1], {**system[-1], "cache_control": _BREAKPOINT}]
        if params.temperature is not None:
            wire["temperature"] = params.temperature
        if params.top_p is not None:
            wire["top_p"] = params.top_p
        if params.stop:
            wire["stop_sequences"] = list(params.stop)
        if request.schema is not None:
            self._ask_for(request.schema, wire)
        if len(messages) >= 5 and turns[-1].role == "user":
            example = messages[-2]
            example["content"] = [{"type": "text", "text": example["content"], "cache_control": _BREAKPOINT}]
        wire.update(params.extra)
        return wire

    def read(self, body: bytes) -> Reading:
        """Read an answer. Raises `AnswerError` as `distill.teachers.reading` says."""
        return read_message(body, self.model)

    def _ask_for(self, schema: Mapping[str, Any], wire: dict[str, Any]) -> None:
        adapted = _adapted(schema) if self._config.structured in ("auto", "json_schema") else None
        if adapted is not None:
            wire["output_config"] = {"format": {"type": "json_schema", "schema": adapted}}
            return
        last = next((message for message in reversed(wire["messages"]) if message["role"] == "user"), None)
        if last is not None:
            last["content"] = f"{last['content']}\n\n{in_words(schema)}"

    # -- the endpoint ----------------------------------------------------------------------------------------------

    def _endpoint(self) -> str:
        scheme, host, path, query, _ = urlsplit(self._config.base_url or DEFAULT_URL)
        path = path.rstrip("/").removesuffix("/messages").removesuffix("/v1")
        return urlunsplit((scheme, host, f"{path}/v1/messages", query, ""))

    def _sdk(self, client: httpx2.AsyncClient) -> SdkClient:
        import anthropic

        headers = dict(self._config.headers)
        if self._config.base_url is not None:
            headers.setdefault("x-api-key", self._key)  # servers that speak the same wire know the older header
        sdk = anthropic.AsyncAnthropic(
            api_key=self._key,
            base_url=self._config.base_url or DEFAULT_URL,
            default_headers=headers,
            timeout=self._config.timeout_s,
            max_retries=0,
            http_client=client,
        )
        return cast(SdkClient, sdk)

    def _shape(self, body: Any) -> bool:
        return _is_message(body)


def read_message(body: bytes, model: str) -> Reading:
    """Read the body of a message. `model` is the name to report when the body gives none.

    Raises:
        AnswerError: UNREADABLE (a lone surrogate in the text), MALFORMED (not a message at all).
    """
    try:
        whole = envelope(body)
    except ValueError as error:
        raise AnswerError(FailureClass.MALFORMED, f"the body is not JSON: {error}") from None
    if not _is_message(whole):
        raise AnswerError(FailureClass.MALFORMED, "the body is not a message")
    said: list[str] = []
    thoughts: list[str] = []
    for block in whole["content"]:
        if not isinstance(block, dict):
            continue
        members = cast("dict[str, Any]", block)
        for name, into in (("text", said), ("thinking", thoughts)):
            value = members.get(name)
            if members.get("type") == name and isinstance(value, str):
                into.append(value)
    text, thinking, cut = split_thinking("".join(said))
    if thinking:
        thoughts.append(thinking)
    finish = _FINISH.get(str(whole.get("stop_reason")), "stop")
    if finish == "stop" and cut:
        finish = "length"
    elif finish == "stop" and not text.strip():
        finish = "empty"
    elif finish == "refusal" and not text:
        details = whole.get("stop_details")
        reason = cast("dict[str, Any]", details).get("explanation") if isinstance(details, dict) else None
        text = reason if isinstance(reason, str) else ""
    reasoning = "\n".join(part.strip("\n") for part in thoughts if part.strip()) or None
    named = whole.get("model")
    model = named if isinstance(named, str) and named else model
    return checked(Reading(text, reasoning, finish, _usage(whole.get("usage")), model))


def _usage(value: Any) -> Usage:
    # `input_tokens` counts only what the cache had no part in; ours is all that went in.
    read, written = tokens(value, "cache_read_input_tokens"), tokens(value, "cache_creation_input_tokens")
    made = tokens(value, "output_tokens")
    details = cast("dict[str, Any]", value).get("output_tokens_details") if isinstance(value, dict) else None
    return Usage(
        input=tokens(value, "input_tokens") + read + written,
        output=made,
        cached=read,
        cache_write=written,
        reasoning=min(tokens(details, "thinking_tokens"), made),
    )


def _is_message(body: Any) -> bool:
    if not isinstance(body, dict):
        return False
    members = cast("dict[str, Any]", body)
    return isinstance(members.get("content"), list) and members.get("type", "message") == "message"


def _adapted(schema: Mapping[str, Any]) -> dict[str, Any] | None:
    """The schema as the API takes it, or None when it cannot."""
    from anthropic import transform_schema

    try:
        return transform_schema({key: value for key, value in schema.items() if key not in ("$schema", "$id")})
    except (ValueError, AssertionError, AttributeError, TypeError):
        return None
