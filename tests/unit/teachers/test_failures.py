"""The classifier: every provider's words for the same trouble, and no input that makes it raise."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distill.errors import FailureClass, TeacherError
from distill.io.redact import Redactor
from distill.teachers import Reply
from distill.teachers.failures import failure_of
from distill.teachers.reading import is_chat

WALL = 1_800_000_000.0
JSON = {"content-type": "application/json"}


def judged(status: int, body: Any, headers: dict[str, str] | None = None) -> TeacherError | None:
    data = body if isinstance(body, bytes) else orjson.dumps(body)
    reply = Reply(status, data, JSON if headers is None else headers)
    return failure_of(reply, is_answer=is_chat, scrub=Redactor(("sk-secret",)), wall=lambda: WALL)


def openai(code: str, message: str = "m", kind: str = "t") -> dict[str, Any]:
    return {"error": {"message": message, "type": kind, "param": None, "code": code}}


@pytest.mark.parametrize(
    ("status", "body", "failure"),
    [
        (429, openai("rate_limit_exceeded", "Rate limit reached for gpt in requests"), "rate_limited"),
        (429, openai("insufficient_quota", "You exceeded your current quota, please check your plan"), "quota"),
        (429, {"type": "error", "error": {"type": "rate_limit_error", "message": "slow down"}}, "rate_limited"),
        (429, openai("rate_limit_exceeded", "Request too large for gpt-4o: Limit 3, Requested 5"), "bad_request"),
        # Google words a rate limit as a quota, and says when it ends.
        (429, [{"error": {"code": 429, "message": "You exceeded your current quota", "status": "RESOURCE_EXHAUSTED",
                          "details": [{"retryDelay": "34s"}]}}], "rate_limited"),
        (402, openai("x"), "quota"),
        (403, openai("billing_not_active"), "quota"),
        (400, {"type": "error", "error": {"type": "invalid_request_error",
                                          "message": "Your credit balance is too low to access the API."}}, "quota"),
        (400, openai("content_filter", "The response was filtered"), "filtered"),
        (400, {"error": {"message": "filtered", "code": "x", "innererror": {"code": "ResponsibleAIPolicyViolation"}}},
         "filtered"),
        (400, openai("content_policy_violation"), "filtered"),
        (400, {"type": "error", "error": {"type": "invalid_request_error",
                                          "message": "Output blocked by content filtering policy"}}, "filtered"),
        (403, {"error": {"code": 403, "message": "Your chosen model requires moderation and your input was flagged"}},
         "filtered"),
        (400, openai("context_length_exceeded"), "context"),
        (400, {"object": "error", "message": "This model's maximum context length is 4096 tokens", "code": 400},
         "context"),
        (400, {"type": "error", "error": {"type": "invalid_request_error",
                                          "message": "prompt is too long: 210000 tokens > 200000 maximum"}}, "context"),
        (400, {"type": "error", "error": {"message": "input length and `max_tokens` exceed context limit: 1 + 2 > 2"}},
         "context"),
        (400, {"error": {"message": "the request exceeds the available context size",
                         "type": "exceed_context_size_error"}}, "context"),
        (400, {"error": {"message": "The input token count (9) exceeds the maximum number of tokens allowed (8)."}},
         "context"),
        (401, openai("invalid_api_key"), "auth"),
        (403, {"detail": "Forbidden"}, "auth"),
        (404, openai("model_not_found"), "bad_request"),
        (413, b"", "bad_request"),
        (422, {"detail": [{"msg": "field required"}]}, "bad_request"),
        (418, b"teapot", "bad_request"),
        (301, b"", "bad_request"),
        (408, b"", "timeout"),
        (504, b"<html>gateway timeout</html>", "timeout"),
        (409, b"", "overloaded"),
        (425, b"", "overloaded"),
        (500, openai("server_error"), "overloaded"),
        (501, b"", "bad_request"),
        (503, {"error": "loading model"}, "overloaded"),
        (529, {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}, "overloaded"),
        (530, b"", "overloaded"),
        (200, {"error": {"code": 429, "message": "upstream busy"}}, "rate_limited"),
        (200, {"error": {"code": 502, "message": "upstream"}}, "overloaded"),
        (200, {"error": {"code": "402", "message": "no money"}}, "quota"),
        (200, {"error": {"type": "overloaded_error", "message": "x"}}, "overloaded"),
        (200, {"error": {"code": "insufficient_quota"}}, "quota"),
        (200, {"error": "something"}, "malformed"),
        (200, {"choices": [{"finish_reason": "error", "message": {"content": "half"}}]}, "overloaded"),
        (200, {"choices": [{"error": {"code": 429, "message": "x"}, "message": {}}]}, "rate_limited"),
        (200, {"choices": None}, "malformed"),
        (200, {"choices": [None]}, "malformed"),
        (200, {"choices": {}}, "malformed"),
        (200, {"ok": True}, "malformed"),
        (200, [], "malformed"),
        (200, b"", "malformed"),
        (200, b'{"choices": [', "malformed"),
        (200, b'{"choices": [], "x": NaN}', "malformed"),
        (200, b"\xff\xfe", "malformed"),
        (200, b"data: {}\n\n", "malformed"),
    ],
)  # fmt: skip
def test_class(status: int, body: Any, failure: str) -> None:
    error = judged(status, body)
    assert error is not None
    assert error.failure == FailureClass(failure)
    assert error.status == status


@pytest.mark.parametrize("kind", ["text/html", "text/event-stream", "image/png"])
def test_the_wrong_content_type_is_malformed_whatever_the_body(kind: str) -> None:
    error = judged(200, {"choices": []}, {"content-type": kind})
    assert error is not None
    assert error.failure is FailureClass.MALFORMED
    assert kind in error.message


@pytest.mark.parametrize("headers", [{}, {"content-type": "text/plain"}, {"content-type": "application/problem+json"}])
def test_an_answer_is_no_failure(headers: dict[str, str]) -> None:
    assert judged(200, {"choices": [{"message": {"content": "x"}}]}, headers) is None
    assert judged(200, {"choices": []}, headers) is None


def test_an_unreadable_answer_is_an_answer() -> None:
    assert judged(200, b'{"choices":[{"message":{"content":"\\ud83d"}}]}') is None


@pytest.mark.parametrize(
    ("headers", "body", "expected"),
    [
        ({"retry-after": "7"}, b"", 7.0),
        ({"retry-after": "1.5"}, b"", 1.5),
        ({"retry-after": "7", "retry-after-ms": "250"}, b"", 0.25),
        ({"retry-after": "Fri, 15 Jan 2027 08:00:30 GMT"}, b"", 30.0),
        ({"retry-after": "Fri, 15 Jan 2027 07:00:00 GMT"}, b"", 0.0),
        ({"retry-after": "soon"}, b"", None),
        ({"retry-after": "nan"}, b"", None),
        ({"retry-after": "-1"}, b"", None),
        ({}, openai("rate_limit_exceeded", "Please try again in 6.2s. Visit"), 6.2),
        ({}, openai("rate_limit_exceeded", "Please try again in 120ms."), 0.12),
        ({}, {"error": {"message": "x", "details": [{"retryDelay": "34s"}]}}, 34.0),
        ({"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "1m6s"}, b"", 66.0),
        ({"x-ratelimit-remaining-requests": "9", "x-ratelimit-reset-requests": "1m6s"}, b"", None),
        ({"anthropic-ratelimit-tokens-remaining": "0", "anthropic-ratelimit-tokens-reset": "2027-01-15T08:00:12Z"},
         b"", 12.0),
        ({}, b"", None),
    ],
)  # fmt: skip
def test_when_to_come_back(headers: dict[str, str], body: Any, expected: float | None) -> None:
    error = judged(429, body, {**JSON, **headers})
    assert error is not None
    assert error.failure is FailureClass.RATE_LIMITED
    assert error.retry_after == (None if expected is None else pytest.approx(expected))


def test_what_is_permanent_names_no_time() -> None:
    error = judged(400, b"", {"retry-after": "5"})
    assert error is not None
    assert error.retry_after is None


def test_messages_are_short_clean_and_without_secrets() -> None:
    error = judged(400, openai("x", "\x1b[31mkey sk-secret is\nwrong " + "long " * 500))
    assert error is not None
    text = str(error)
    assert "sk-secret" not in text
    assert "key *** is wrong" in text
    assert text.isprintable()
    assert len(text) < 320


def test_a_page_is_told_as_its_words() -> None:
    error = judged(502, b"<html><style>h1 {}</style><h1>Bad Gateway</h1></html>", {"content-type": "text/html"})
    assert error is not None
    assert error.message == "502: Bad Gateway"


def test_a_wrong_address_gets_a_hint() -> None:
    error = judged(404, b"<html>Not Found</html>", {"content-type": "text/html"})
    assert error is not None
    assert "/v1" in error.message


@given(st.integers(100, 599), st.binary(max_size=300), st.dictionaries(st.sampled_from(
    ["content-type", "retry-after", "retry-after-ms", "x-ratelimit-reset-requests", "x-ratelimit-remaining-requests"]),
    st.text(max_size=20)))  # fmt: skip
def test_it_never_raises(status: int, body: bytes, headers: dict[str, str]) -> None:
    error = judged(status, body, headers)
    if status != 200:
        assert error is not None
        assert error.retry_after is None or error.retry_after >= 0


@given(st.integers(100, 599), st.recursive(
    st.none() | st.booleans() | st.integers(-9, 999) | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
        st.sampled_from(["error", "code", "message", "choices", "type", "status", "finish_reason"]), inner, max_size=4),
    max_leaves=12))  # fmt: skip
def test_it_never_raises_on_json(status: int, body: Any) -> None:
    judged(status, body)


@pytest.mark.parametrize(
    ("status", "body", "headers", "daily", "after"),
    [
        (429, openai("rate_limit_exceeded", "Rate limit reached for gpt on requests per min (RPM)"), {}, False, None),
        (429, openai("rate_limit_exceeded", "Limit 200, on requests per day (RPD). Please try again in 7m12s."), {},
         True, 432.0),
        (429, openai("tokens", "Rate limit reached on tokens per day (TPD): Please try again in 14m24.5s."), {}, True,
         864.5),
        (429, {"error": {"message": "Rate limit exceeded: free-models-per-day"}}, {"retry-after": "3600"},
         True, 3600.0),
        (429, {"error": {"message": "Rate limit of 50 per 86400s exceeded for UserByModelByDay. "
                                    "Please wait 43200 seconds before retrying."}}, {}, True, 43200.0),
        (429, [{"error": {"message": "You exceeded your current quota", "details": [
            {"violations": [{"quotaId": "GenerateRequestsPerDayPerProjectPerModel-FreeTier"}]}]}}], {}, True, None),
        (429, openai("x", "Please try again in 1h2m3s."), {}, False, 3723.0),
    ],
)  # fmt: skip
def test_quotas_of_the_day(status: int, body: Any, headers: dict[str, str], daily: bool, after: float | None) -> None:
    error = judged(status, body, {**JSON, **headers})
    assert error is not None
    assert (error.failure, error.daily) == (FailureClass.RATE_LIMITED, daily)
    assert error.retry_after == (None if after is None else pytest.approx(after))


def test_a_moment_is_read_by_the_providers_clock() -> None:
    """Ours is hours ahead; the provider asks to wait half a minute."""
    headers = {"date": "Thu, 14 Jan 2027 20:00:00 GMT", "retry-after": "Thu, 14 Jan 2027 20:00:30 GMT"}
    error = judged(429, b"", {**JSON, **headers})
    assert error is not None
    assert error.retry_after == pytest.approx(30.0)
