"""Why a reply is not an answer. One classifier for all providers.

Read in this order: what the error body says of itself (its codes are more exact than the status: `insufficient_quota`
comes as a 429, a content filter as a 400), then the status. Documented cases:

    QUOTA         insufficient_quota, billing codes, 402, "credit balance is too low"
    FILTERED      content_filter, content_policy_violation, moderation
    CONTEXT       context_length_exceeded and its like
    BAD_REQUEST   400, 404, 405, 413, 422; a redirect; a request larger than the rate limit
    AUTH          401, 403
    RATE_LIMITED  429
    TIMEOUT       408, 504, 524
    OVERLOADED    409, 423, 425 (conflicts that pass), 500, 502, 503, 529 and every other 5xx
    MALFORMED     a 200 that is not the provider's JSON

A 200 whose body is `{"error": …}` is judged by the code in it. Messages are shortened, and known secrets masked.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, cast

import orjson

from distill.errors import FailureClass, TeacherError
from distill.teachers.base import Reply
from distill.teachers.ratelimit import clock_of, limits_from, retry_after
from distill.teachers.reading import envelope

__all__ = ["brief", "envelope_or_none", "failure_of"]

_LONGEST_MESSAGE = 300

_QUOTA = re.compile(
    r"insufficient[_ ](quota|balance|credits?|funds)|billing_(not_active|hard_limit_reached)|billing_error"
    r"|credit balance is too low|out of credits|exceeded your current quota|requires more credits"
)
_FILTERED = re.compile(
    r"content[_ ]filter|content[_ ]policy|responsibleaipolicyviolation|content management policy|moderation_blocked"
    r"|data_inspection_failed|flagged by moderation|requires moderation"
)
_TOO_LONG = re.compile(
    r"context_length_exceeded|maximum context length|prompt is too long|string_above_max_length|exceed context limit"
    r"|exceeds the available context size|exceed_context_size|input token count[^.]{0,40} exceeds the maximum"
    r"|inputs?`? tokens \+ `?max_new_tokens`? must be"
)
_NEVER_FITS = re.compile(r"request too large")
_TRY_AGAIN = re.compile(
    r"(?:try again|retry|wait)(?: in| for| after)? ((?:[\d.]+ ?(?:[a-z]+|$),? ?)+)|retrydelay\W+([\d.]+s)"
)
_DURATION = re.compile(r"([\d.]+) ?(ms|s|secs?|seconds?|m|mins?|minutes?|h|hours?|d|days?)(?![a-z])")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_DAILY = re.compile(r"per[ _-]?day|by[ _-]?day|/ ?day|\b[rt]pd\b|\bdaily\b|\b86400 ?s")
_CONFLICTS = frozenset({409, 423, 425})
_SLOW = frozenset({408, 504, 524})
_JSON_TYPES = ("json", "text/plain", "octet-stream")


def failure_of(
    reply: Reply,
    *,
    is_answer: Callable[[Any], bool],
    scrub: Callable[[str], str] = str,
    wall: Callable[[], float] = time.time,
) -> TeacherError | None:
    """Why `reply` is not an answer, or None. Never raises.

    Args:
        is_answer: whether a parsed body has the shape of the provider's answers.
        scrub: masks secrets in texts that come from the provider.
        wall: Unix time, for headers that name a moment.
    """
    if reply.status == 200:
        return _not_an_answer(reply, is_answer, scrub, wall)
    body = envelope_or_none(reply.body)
    said = " ".join(_texts(body)) if body is not None else _plain(reply.body)
    failure = _class_of(reply.status, said, reply)
    message = f"{reply.status}: {brief(_message(body) or said, scrub) or 'no explanation'}"
    if 300 <= reply.status < 400:
        message = f"{reply.status}: the address redirects, and redirects are not followed: correct base_url"
    elif reply.status == 404 and (body is None or not _message(body)):
        message += " (is base_url complete? It usually ends in /v1)"
    return _error(failure, message, said, reply, wall)


def envelope_or_none(body: bytes) -> Any:
    """The body as JSON, or None when it is not strict JSON (or is `null`)."""
    try:
        return orjson.loads(body.removeprefix(b"\xef\xbb\xbf"))
    except orjson.JSONDecodeError:
        return None


def brief(text: str, scrub: Callable[[str], str]) -> str:
    """A provider's text made fit for an error message: secrets masked, one line, no control characters, short."""
    text = " ".join("".join(char if char.isprintable() else " " for char in scrub(text[:10_000])).split())
    return text if len(text) <= _LONGEST_MESSAGE else text[: _LONGEST_MESSAGE - 1] + "…"


def _not_an_answer(
    reply: Reply, is_answer: Callable[[Any], bool], scrub: Callable[[str], str], wall: Callable[[], float]
) -> TeacherError | None:
    kind = reply.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind and not any(known in kind for known in _JSON_TYPES):
        return TeacherError(FailureClass.MALFORMED, f"the body is {brief(kind, scrub)}, not JSON", status=200)
    try:
        body = envelope(reply.body)
    except ValueError as error:
        start = brief(reply.body[:80].decode("utf-8", "replace"), scrub)
        reason = brief(str(error), scrub)
        return TeacherError(FailureClass.MALFORMED, f"the body is not JSON ({reason}): {start}", status=200)
    if is_answer(body):
        return None
    problem = _error_inside(body)
    if problem is None:
        return TeacherError(FailureClass.MALFORMED, "the body is JSON, but not an answer", status=200)
    said = " ".join(_texts(problem))
    failure = _class_of(_status_inside(problem), said, reply)
    message = f"error in a 200: {brief(_message(problem) or said, scrub) or 'no explanation'}"
    return _error(failure, message, said, reply, wall)


def _error(failure: FailureClass, message: str, said: str, reply: Reply, wall: Callable[[], float]) -> TeacherError:
    # Moments are read by the provider's own clock where it tells the time: ours may be wrong by hours.
    after = _wait(failure, said, reply, clock_of(reply.headers, wall=wall()))
    daily = failure is FailureClass.RATE_LIMITED and bool(_DAILY.search(said.lower()))
    return TeacherError(failure, message, status=reply.status, retry_after=after, daily=daily)


def _class_of(status: int, said: str, reply: Reply) -> FailureClass:
    said = said.lower()
    if status == 402 or (_QUOTA.search(said) and not _names_a_time(said, reply)):
        return FailureClass.QUOTA
    if status != 429 and status < 500 and _FILTERED.search(said):
        return FailureClass.FILTERED
    if status < 500 and _TOO_LONG.search(said):
        return FailureClass.CONTEXT
    if status == 429:
        return FailureClass.BAD_REQUEST if _NEVER_FITS.search(said) else FailureClass.RATE_LIMITED
    if status in (401, 403):
        return FailureClass.AUTH
    if status in _SLOW:
        return FailureClass.TIMEOUT
    if status in _CONFLICTS or (status >= 500 and status not in (501, 505)):
        return FailureClass.OVERLOADED
    if status == 200:
        return FailureClass.MALFORMED
    return FailureClass.BAD_REQUEST


def _names_a_time(said: str, reply: Reply) -> bool:
    # Some providers word a rate limit as a quota; a quota proper does not come back in seconds.
    return "insufficient_quota" not in said and (
        "retry-after" in reply.headers or _named(said) is not None or bool(_DAILY.search(said))
    )


def _wait(failure: FailureClass, said: str, reply: Reply, wall: float) -> float | None:
    if failure not in (FailureClass.RATE_LIMITED, FailureClass.OVERLOADED, FailureClass.TIMEOUT):
        return None
    after = retry_after(reply.headers, wall=wall)
    if after is not None or failure is not FailureClass.RATE_LIMITED:
        return after
    named = _named(said.lower())
    if named is not None:
        return named
    left = limits_from(reply.headers, wall=wall)
    return left.reset_s if 0 in (left.requests_remaining, left.tokens_remaining) else None


def _named(said: str) -> float | None:
    """The seconds to wait that a text in lower case names: `try again in 7m12.5s`, `wait 43200 seconds`."""
    match = _TRY_AGAIN.search(said)
    if match is None:
        return None
    found = _DURATION.findall(match.group(1) or match.group(2))
    try:
        return sum(float(number) * (_SECONDS.get(unit) or _SECONDS[unit[0]]) for number, unit in found) or None
    except ValueError:
        return None


_WORDS = {
    "insufficient_quota": 429,
    "rate_limit": 429,
    "too_many_requests": 429,
    "resource_exhausted": 429,
    "overloaded": 529,
    "unavailable": 503,
    "server_error": 500,
    "api_error": 500,
    "internal": 500,
    "timeout": 504,
    "authentication": 401,
    "permission": 403,
    "invalid_request": 400,
    "not_found": 404,
}


def _error_inside(body: Any) -> Any:
    """The error of a 200: `{"error": …}`, or one inside the first choice."""
    if not isinstance(body, dict):
        return None
    members = cast("dict[str, Any]", body)
    if members.get("error"):
        return members["error"]
    choices = members.get("choices")
    first = cast("list[Any]", choices)[0] if isinstance(choices, list) and choices else None
    if isinstance(first, dict):
        choice = cast("dict[str, Any]", first)
        if choice.get("error"):
            return choice["error"]
        if choice.get("finish_reason") == "error":
            return {"code": 502, "message": "the provider broke off the answer"}
    return None


def _status_inside(problem: Any) -> int:
    """The HTTP status that an error object means; 200 when it names none."""
    if isinstance(problem, dict):
        members = cast("dict[str, Any]", problem)
        for key in ("code", "status", "status_code"):
            value = members.get(key)
            if isinstance(value, str) and value.isdecimal() and len(value) == 3:
                value = int(value)
            if isinstance(value, int) and 400 <= value < 600:
                return value
    said = " ".join(_texts(problem)).lower()
    return next((status for word, status in _WORDS.items() if word in said), 200)


def _texts(value: Any, depth: int = 0) -> Iterator[str]:
    """Every text in an error body, codes first by the order of its members."""
    if isinstance(value, str):
        yield value[:2000]
    elif isinstance(value, Mapping) and depth < 8:
        for key, inner in list(cast("Mapping[str, Any]", value).items())[:50]:
            if key == "retryDelay":
                yield f"retryDelay {inner}"
            yield from _texts(inner, depth + 1)
    elif isinstance(value, list) and depth < 8:
        for inner in cast("list[Any]", value)[:20]:
            yield from _texts(inner, depth + 1)


def _message(value: Any, depth: int = 0) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, list) and value and depth < 5:
        return _message(value[0], depth + 1)
    if isinstance(value, dict) and depth < 5:
        members = cast("dict[str, Any]", value)
        for key in ("error", "message", "detail", "msg"):
            found = _message(members.get(key), depth + 1)
            if found:
                return found
    return ""


def _plain(body: bytes) -> str:
    text = body[:4000].decode("utf-8", "replace")
    return re.sub(r"<(style|script)\b.*?</\1>|<[^>]*>", " ", text, flags=re.DOTALL | re.IGNORECASE)
