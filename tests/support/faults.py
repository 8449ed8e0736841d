"""What the loopback teacher replies: whole answers, and every fault by name, in both dialects.

Each fault is a function of (dialect, request body, its digest, words) to `Served`. Faults that a provider would bill
(the model ran, the reply is odd) are marked `paid`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import orjson

from distill.teachers.invent import Dice, sentences, value_for

__all__ = ["BROKEN", "ECHOES", "FAULTS", "PASSING", "Dialect", "Served", "answer", "error"]

Dialect = Literal["openai", "anthropic"]


@dataclass(frozen=True, slots=True)
class Served:
    """One reply. `data` is everything on the wire, or None for no reply ever; `waits` says whether the server's
    latency applies, `extra` adds seconds to it; `then` is what happens to the connection afterwards."""

    data: bytes | None
    waits: bool = True
    extra: float = 0.0
    then: Literal["keep", "close", "reset"] = "keep"
    paid: bool = False


_REASONS = {
    200: "OK",
    302: "Found",
    400: "Bad Request",
    401: "Unauthorized",
    402: "Payment Required",
    403: "Forbidden",
    404: "Not Found",
    408: "Request Timeout",
    409: "Conflict",
    413: "Payload Too Large",
    422: "Unprocessable Entity",
    429: "Too Many Requests",
    500: "Internal Server Error",
    502: "Bad Gateway",
    503: "Service Unavailable",
    529: "Overloaded",
}


def message(
    status: int, body: bytes, kind: str = "application/json", headers: Mapping[str, str] | None = None
) -> bytes:
    """An HTTP response."""
    more = "".join(f"{name}: {value}\r\n" for name, value in (headers or {}).items())
    return b"HTTP/1.1 %d %s\r\ncontent-type: %s\r\ncontent-length: %d\r\n%s\r\n%s" % (
        status,
        _REASONS[status].encode(),
        kind.encode(),
        len(body),
        more.encode(),
        body,
    )


def error(dialect: Dialect, status: int, kind: str, text: str, headers: Mapping[str, str] | None = None) -> Served:
    """A refusal with the provider's own error body. `kind` is OpenAI's code, or Anthropic's error type."""
    if dialect == "anthropic":
        names = {"rate_limit": "rate_limit_error", "server_error": "api_error", "not_found": "not_found_error"}
        value: dict[str, Any] = {"type": "error", "error": {"type": names.get(kind, kind), "message": text}}
    else:
        value = {"error": {"message": text, "type": kind, "param": None, "code": kind}}
    return Served(message(status, orjson.dumps(value), headers=headers), waits=False)


def answer(dialect: Dialect, body: bytes, digest: bytes, words: int) -> Served:
    """A whole answer to `body`."""
    return _answered(dialect, _text(body, digest, words), body, digest)


def _text(body: bytes, digest: bytes, words: int) -> str:
    dice = Dice(int.from_bytes(digest[:8]))
    if b'"schema"' in body:
        request = orjson.loads(body)
        form = request.get("response_format") or request.get("output_config", {}).get("format") or {}
        schema = form.get("json_schema", form).get("schema")
        if schema is not None:
            return orjson.dumps(value_for(schema, dice)).decode()
    return sentences(dice, words)


def _answered(dialect: Dialect, text: str, body: bytes, digest: bytes, finish: str = "stop", **fields: Any) -> Served:
    payload = _payload(dialect, orjson.dumps(text), body, digest, finish, orjson.dumps(fields)[1:-1] if fields else b"")
    return Served(message(200, payload), paid=True)


def _payload(dialect: Dialect, text: bytes, body: bytes, digest: bytes, finish: str, fields: bytes = b"") -> bytes:
    """`text` is a JSON literal; `fields` are further members of the message."""
    used, made = max(1, len(body) // 4), max(1, len(text) // 4)
    more = b"," + fields if fields else b""
    if dialect == "anthropic":
        names = {"stop": "end_turn", "length": "max_tokens", "content_filter": "refusal"}
        return (
            b'{"id":"msg_%s","type":"message","role":"assistant","model":"mock","content":[{"type":"text","text":%s}],'
            b'"stop_reason":"%s","stop_sequence":null,"usage":{"input_tokens":%d,"cache_creation_input_tokens":0,'
            b'"cache_read_input_tokens":0,"output_tokens":%d}%s}'
        ) % (digest.hex().encode(), text, names.get(finish, finish).encode(), used, made, more)
    return (
        b'{"id":"chatcmpl-%s","object":"chat.completion","created":1790000000,"model":"mock","choices":[{"index":0,'
        b'"message":{"role":"assistant","content":%s%s},"logprobs":null,"finish_reason":"%s"}],'
        b'"usage":{"prompt_tokens":%d,"completion_tokens":%d,"total_tokens":%d,'
        b'"prompt_tokens_details":{"cached_tokens":0},"completion_tokens_details":{"reasoning_tokens":0}}}'
    ) % (digest.hex().encode(), text, more, finish.encode(), used, made, used + made)


# -- faults --------------------------------------------------------------------------------------------------------

Fault = Callable[[Dialect, bytes, bytes, int], Served]


def _refused(status: int, kind: str, text: str, headers: Mapping[str, str] | None = None) -> Fault:
    return lambda dialect, body, digest, words: error(dialect, status, kind, text, headers)


def _fixed(served: Served) -> Fault:
    return lambda dialect, body, digest, words: served


def _as_text(literal: bytes) -> Fault:
    """An answer whose text is the JSON literal as it is, legal or not."""

    def fault(dialect: Dialect, body: bytes, digest: bytes, words: int) -> Served:
        return Served(message(200, _payload(dialect, literal, body, digest, "stop")), paid=True)

    return fault


def _finished(finish: str, text: str | None = None, **fields: Any) -> Fault:
    def fault(dialect: Dialect, body: bytes, digest: bytes, words: int) -> Served:
        said = _text(body, digest, words) if text is None else text
        return _answered(dialect, said, body, digest, finish, **fields)

    return fault


def _changed(change: Callable[[bytes], bytes], *, declared: bool = True) -> Fault:
    """An answer whose body is changed. Not `declared`: its length is that of the whole body."""

    def fault(dialect: Dialect, body: bytes, digest: bytes, words: int) -> Served:
        whole = answer(dialect, body, digest, words).data or b""
        head, _, payload = whole.partition(b"\r\n\r\n")
        if declared:
            return Served(message(200, change(payload)), paid=True)
        return Served(head + b"\r\n\r\n" + change(payload), then="reset", paid=True)

    return fault


def _length(dialect: Dialect, body: bytes, digest: bytes, words: int) -> Served:
    said = _text(body, digest, words)
    return _answered(dialect, said[: len(said) // 2], body, digest, "length")


def _slow(dialect: Dialect, body: bytes, digest: bytes, words: int) -> Served:
    return replace(answer(dialect, body, digest, words), extra=2.0)


def _quota(dialect: Dialect, body: bytes, digest: bytes, words: int) -> Served:
    if dialect == "anthropic":
        text = "Your credit balance is too low to access the API. Please go to Plans & Billing to purchase credits."
        return error(dialect, 400, "invalid_request_error", text)
    text = "You exceeded your current quota, please check your plan and billing details."
    return error(dialect, 429, "insufficient_quota", text)


def _refusal(dialect: Dialect, body: bytes, digest: bytes, words: int) -> Served:
    if dialect == "anthropic":
        return _answered(dialect, "", body, digest, "refusal")
    payload = _payload(dialect, b"null", body, digest, "stop", b'"refusal":"I am sorry, I cannot help with that."')
    return Served(message(200, payload), paid=True)


def _empty(dialect: Dialect, body: bytes, digest: bytes, words: int) -> Served:
    whole = orjson.loads(_payload(dialect, b'""', body, digest, "stop"))
    whole["content" if dialect == "anthropic" else "choices"] = []
    return Served(message(200, orjson.dumps(whole)), paid=True)


def _filtered_400(dialect: Dialect, body: bytes, digest: bytes, words: int) -> Served:
    if dialect == "anthropic":
        return error(dialect, 400, "invalid_request_error", "Output blocked by content filtering policy")
    return error(dialect, 400, "content_filter", "The prompt was filtered by the content management policy.")


def _error_in_200(dialect: Dialect, body: bytes, digest: bytes, words: int) -> Served:
    value = {"error": {"message": "Provider returned error", "code": 502}}
    return Served(message(200, orjson.dumps(value)))


def _think(dialect: Dialect, body: bytes, digest: bytes, words: int) -> Served:
    return _answered(dialect, f"<think>\nStep by step.\n</think>\n\n{_text(body, digest, words)}", body, digest)


def _huge(dialect: Dialect, body: bytes, digest: bytes, words: int) -> Served:
    return Served(_huge_message(dialect), then="close")


@functools.cache
def _huge_message(dialect: Dialect) -> bytes:
    return message(200, _payload(dialect, b'"' + b"x" * (33 << 20) + b'"', b"", b"", "stop"))


_HTML = b"<!doctype html><html><head><title>Sign in</title></head><body><h1>Sign in</h1></body></html>"

FAULTS: dict[str, Fault] = {
    "429": _refused(429, "rate_limit", "Rate limit reached", {"retry-after": "1"}),
    "429_daily": _refused(
        429,
        "rate_limit_exceeded",
        "Rate limit reached on requests per day (RPD): Limit 200, Used 200. Try again in 5h7m0s.",
    ),
    "429_no_retry_after": _refused(429, "rate_limit", "Rate limit reached"),
    "500": _refused(500, "server_error", "The server had an error"),
    "502_html": _fixed(Served(message(502, b"<html><h1>502 Bad Gateway</h1></html>", "text/html"), waits=False)),
    "503": _refused(503, "server_error", "The server is overloaded", {"retry-after": "1"}),
    "529": _refused(529, "overloaded_error", "Overloaded"),
    "408": _refused(408, "timeout", "The request timed out"),
    "409": _refused(409, "conflict", "Conflict"),
    "timeout": _fixed(Served(None)),
    "slow": _slow,
    "close_before_reply": _fixed(Served(b"", then="close")),
    "reset_mid_body": _changed(lambda payload: payload[: len(payload) // 2], declared=False),
    "truncated_json": _changed(lambda payload: payload[: len(payload) // 2]),
    "nan": _changed(
        lambda payload: payload.replace(b'"logprobs":null', b'"logprobs":NaN').replace(b":null,", b":NaN,")
    ),
    "duplicate_keys": _changed(lambda payload: b'{"id":"first","model":"first",' + payload[1:]),
    "wrong_content_type": _fixed(Served(message(200, _HTML, "text/html; charset=utf-8"))),
    "not_an_answer": _fixed(Served(message(200, b'{"status":"ok"}'))),
    "empty_choices": _empty,
    "empty_text": _finished("stop", ""),
    "refusal": _refusal,
    "content_filter": _finished("content_filter"),
    "content_filter_400": _filtered_400,
    "length": _length,
    "think": _think,
    "lone_surrogate": _as_text(b'"half a pair: \\ud83d and then nothing"'),
    "u2028": _finished("stop", "one line\u2028still the same line\u0085and more"),
    "nul": _finished("stop", "before\u0000after"),
    "error_in_200": _error_in_200,
    "huge": _huge,
    "redirect": _fixed(
        Served(message(302, b"", "text/plain", {"location": "http://127.0.0.1:9/v1/elsewhere"}), waits=False)
    ),
    "401": _refused(401, "authentication_error", "Incorrect API key provided: sk-***"),
    "403": _refused(403, "permission_error", "Not allowed"),
    "insufficient_quota": _quota,
    "404": _refused(404, "not_found", "The model does not exist"),
    "400": _refused(400, "invalid_request_error", "Unknown parameter"),
    "400_context": _refused(400, "context_length_exceeded", "This model's maximum context length is 4096 tokens"),
    "422": _refused(422, "invalid_request_error", "Unprocessable"),
}
"""Name -> fault."""

PASSING = frozenset(
    (
        *("429", "429_no_retry_after", "500", "502_html", "503", "529", "408", "409", "timeout", "slow"),
        *("close_before_reply", "reset_mid_body", "truncated_json", "nan", "wrong_content_type", "not_an_answer"),
        *("error_in_200", "huge"),
    )
)
"""Faults that a client does well to try again after; the others are answers, or refusals of what was asked."""
BROKEN = frozenset(("reset_mid_body", "truncated_json", "nan"))
"""Those of them that are billed though nobody can use them."""


def _echo(status: int, *, html: bool = False) -> Callable[[Dialect, Mapping[str, str]], Served]:
    """A server, or a proxy before it, that quotes the request's headers, the key among them."""

    def fault(dialect: Dialect, headers: Mapping[str, str]) -> Served:
        quoted = "; ".join(f"{name}: {value}" for name, value in headers.items())
        if html:
            page = f"<html><h1>Bad Request</h1><pre>{quoted}</pre></html>".encode()
            return Served(message(status, page, "text/html"), waits=False)
        return error(dialect, status, "invalid_request_error", f"The request had these headers: {quoted}")

    return fault


def _echo_answer(dialect: Dialect, headers: Mapping[str, str]) -> Served:
    key = headers.get("authorization") or headers.get("x-api-key", "")
    return _answered(dialect, f"Your request carried {key}.", b"", b"echo")


ECHOES: dict[str, Callable[[Dialect, Mapping[str, str]], Served]] = {
    "echo_key": _echo(400),
    "echo_key_401": _echo(401),
    "echo_key_500": _echo(500),
    "echo_key_html": _echo(502, html=True),
    "echo_key_answer": _echo_answer,
}
"""Name -> fault of (dialect, headers): these say what they were sent."""
