"""What reply headers say about the provider's own limits: how long to wait, and what is left.

Spellings: `retry-after` (seconds or an HTTP date, RFC 9110), `retry-after-ms` (OpenAI), `x-ratelimit-remaining-tokens`
and `x-ratelimit-reset-requests` (OpenAI, Groq, …; times as `6m0s` or `20ms`), `anthropic-ratelimit-tokens-remaining`
and `-reset` (RFC 3339 times), and the plain `x-ratelimit-remaining`, `x-ratelimit-reset`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

__all__ = ["Remaining", "clock_of", "limits_from", "retry_after", "seconds"]

_LONGEST = 7 * 86400.0
_DURATION = re.compile(r"(?:([\d.]+)d)?(?:([\d.]+)h)?(?:([\d.]+)m(?!s))?(?:([\d.]+)s)?(?:([\d.]+)ms)?")
_UNITS = (86400.0, 3600.0, 60.0, 1.0, 0.001)
_KINDS = {
    "requests": ("requests",),
    "tokens": ("tokens", "input-tokens", "output-tokens"),
}


@dataclass(frozen=True, slots=True)
class Remaining:
    """What is left in the provider's current window; None is not said. `reset_s` is when the scarcer one refills."""

    requests_remaining: int | None = None
    tokens_remaining: int | None = None
    reset_s: float | None = None


def limits_from(headers: Mapping[str, str], *, wall: float) -> Remaining:
    """Read the rate-limit headers (names in lower case) of any reply. Never raises.

    `wall` is the Unix time, for headers that name a moment.
    """
    requests, after_requests = _least(headers, "requests", wall)
    tokens, after_tokens = _least(headers, "tokens", wall)
    if requests is None and after_requests is None:
        requests = _count(headers.get("x-ratelimit-remaining") or headers.get("ratelimit-remaining"))
        after_requests = seconds(headers.get("x-ratelimit-reset") or headers.get("ratelimit-reset"), wall)
    resets = (after_requests, after_tokens)
    used_up = [reset for left, reset in zip((requests, tokens), resets, strict=True) if left == 0 and reset is not None]
    known = used_up or [reset for reset in resets if reset is not None]
    return Remaining(requests, tokens, max(known) if used_up else min(known, default=None))


def retry_after(headers: Mapping[str, str], *, wall: float) -> float | None:
    """Seconds after which the provider wants to be asked again, or None when it does not say. Never raises."""
    precise = _number(headers.get("retry-after-ms"))
    if precise is not None:
        return precise / 1000
    text = headers.get("retry-after")
    after = seconds(text, wall)
    if after is None and text:
        try:
            moment = parsedate_to_datetime(text)
            after = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() - wall
        except (ValueError, TypeError, OverflowError):
            return None
        after = max(0.0, after)
    return after


def clock_of(headers: Mapping[str, str], *, wall: float) -> float:
    """Unix time as the provider has it: its `date` header, or `wall` where it sends none. Never raises."""
    try:
        moment = parsedate_to_datetime(headers["date"])
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (KeyError, ValueError, TypeError, OverflowError):
        return wall


def seconds(text: str | None, wall: float) -> float | None:
    """Seconds from a number, a duration (`1m30s`, `20ms`), a Unix time, or an RFC 3339 time."""
    text = (text or "").strip()
    number = _number(text)
    if number is not None:
        if number > 1e11:  # milliseconds since 1970
            number /= 1000
        return _bounded(number - wall if number > 1e9 else number)
    match = _DURATION.fullmatch(text) if text else None
    try:
        if match is not None:
            pairs = zip(match.groups(), _UNITS, strict=True)
            return _bounded(sum(float(part) * unit for part, unit in pairs if part))
        moment = datetime.fromisoformat(text)
        return _bounded((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() - wall)
    except (ValueError, OverflowError):
        return None


def _least(headers: Mapping[str, str], kind: str, wall: float) -> tuple[int | None, float | None]:
    found: list[tuple[int | None, float | None]] = []
    for name in _KINDS[kind]:
        for left, reset in (
            (f"x-ratelimit-remaining-{name}", f"x-ratelimit-reset-{name}"),
            (f"anthropic-ratelimit-{name}-remaining", f"anthropic-ratelimit-{name}-reset"),
        ):
            count, after = _count(headers.get(left)), seconds(headers.get(reset), wall)
            if count is not None or after is not None:
                found.append((count, after))
    return min(found, key=lambda pair: math.inf if pair[0] is None else pair[0], default=(None, None))


def _count(text: str | None) -> int | None:
    number = _number(text)
    return None if number is None else int(min(number, 1e15))


def _number(text: str | None) -> float | None:
    try:
        number = float(text or "")
    except ValueError:
        return None
    return number if math.isfinite(number) and number >= 0 else None


def _bounded(value: float) -> float:
    return min(max(0.0, value), _LONGEST)
