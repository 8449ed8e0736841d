"""Rate-limit headers, in every spelling."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distill.teachers import Remaining, limits_from
from distill.teachers.ratelimit import retry_after, seconds

WALL = 1_800_000_000.0  # 2027-01-15T08:00:00Z


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({}, Remaining()),
        (
            {"x-ratelimit-remaining-requests": "99", "x-ratelimit-reset-requests": "600ms",
             "x-ratelimit-remaining-tokens": "149984", "x-ratelimit-reset-tokens": "6m0s"},
            Remaining(99, 149984, 0.6),
        ),
        (
            {"x-ratelimit-remaining-requests": "99", "x-ratelimit-reset-requests": "600ms",
             "x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": "6m0s"},
            Remaining(99, 0, 360.0),
        ),
        (
            {"anthropic-ratelimit-requests-remaining": "49",
             "anthropic-ratelimit-requests-reset": "2027-01-15T08:00:05Z",
             "anthropic-ratelimit-input-tokens-remaining": "8000", "anthropic-ratelimit-output-tokens-remaining": "0",
             "anthropic-ratelimit-output-tokens-reset": "2027-01-15T08:00:20Z"},
            Remaining(49, 0, 20.0),
        ),
        ({"x-ratelimit-remaining": "3", "x-ratelimit-reset": "1800000007"}, Remaining(3, None, 7.0)),
        ({"x-ratelimit-remaining": "3", "x-ratelimit-reset": "1800000007000"}, Remaining(3, None, 7.0)),
        ({"x-ratelimit-remaining-requests": "many", "x-ratelimit-reset-requests": "later"}, Remaining()),
    ],
)  # fmt: skip
def test_limits(headers: dict[str, str], expected: Remaining) -> None:
    assert limits_from(headers, wall=WALL) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [("12", 12.0), ("1.5s", 1.5), ("20ms", 0.02), ("1m", 60.0), ("1h2m3s", 3723.0), ("2d", 172800.0),
     ("2027-01-15T08:00:01Z", 1.0), ("2027-01-15T07:00:00Z", 0.0), ("", None), ("1.2.3s", None), ("inf", None)],
)  # fmt: skip
def test_seconds(text: str, expected: float | None) -> None:
    assert seconds(text, WALL) == expected


@given(st.dictionaries(st.sampled_from(["retry-after", "retry-after-ms", "x-ratelimit-reset-requests",
       "x-ratelimit-remaining-tokens", "anthropic-ratelimit-tokens-reset", "x-ratelimit-reset"]),
       st.text() | st.from_regex(r"[-0-9dhms.:TZ ]{1,24}", fullmatch=True)))  # fmt: skip
def test_headers_never_raise_and_never_go_back_in_time(headers: dict[str, str]) -> None:
    for value in (retry_after(headers, wall=WALL), limits_from(headers, wall=WALL).reset_s):
        assert value is None or value >= 0
