from __future__ import annotations

from datetime import UTC, datetime

import pytest

from distill.gateway.line.daily import DAY_S, Daily, day_began
from distill.recipe import Limits

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC).timestamp()


class Clocks:
    """A clock that never jumps and one on the wall."""

    def __init__(self, wall: float = NOON) -> None:
        self.now, self.wall_now = 1000.0, wall

    def pass_by(self, seconds: float) -> None:
        self.now += seconds
        self.wall_now += seconds

    def daily(self, used: list[tuple[float, int, int]] | None = None, **limits: object) -> Daily:
        config = Limits.model_validate(limits)
        return Daily(config, used or [], clock=lambda: self.now, wall=lambda: self.wall_now)


@pytest.mark.parametrize(
    ("starts_at", "began"),
    [
        ("00:00", "2026-11-22T00:00+00:00"),
        ("12:00", "2026-11-22T12:00+00:00"),
        ("12:01", "2026-11-21T12:01+00:00"),
        ("00:00-08:00", "2026-11-22T08:00+00:00"),
        ("00:00+05:30", "2026-11-21T18:30+00:00"),
        (None, "2026-11-21T12:00+00:00"),
    ],
)
def test_when_a_day_began(starts_at: str | None, began: str) -> None:
    assert day_began(starts_at, NOON) == datetime.fromisoformat(began).timestamp()


def send(daily: Daily, clocks: Clocks, tokens: int = 10) -> bool:
    if daily.wait(tokens, clocks.now):
        return False
    daily.take(tokens, clocks.now)
    return True


def test_requests_of_the_last_24_hours_count_whoever_made_them() -> None:
    clocks = Clocks()
    daily = clocks.daily([(NOON - 23 * 3600, 30, 300), (NOON - 3600, 20, 200)], requests_per_day=60)
    assert sum(send(daily, clocks) for _ in range(50)) == 10
    wait = daily.wait(10, clocks.now)
    assert 3600 <= wait <= 3600 + 600  # until the slice of 23 hours ago has aged
    clocks.pass_by(wait)
    assert sum(send(daily, clocks) for _ in range(50)) == 30
    assert daily.in_words() == "60 of 60 requests"


def test_tokens_are_taken_by_estimate_and_settled() -> None:
    clocks = Clocks()
    daily = clocks.daily(tokens_per_day=1000)
    assert send(daily, clocks, 600)
    assert not send(daily, clocks, 600)
    daily.settle(600, 300)
    assert send(daily, clocks, 600)
    assert daily.tokens == 900


def test_a_refusal_of_the_provider_is_no_request() -> None:
    clocks = Clocks()
    daily = clocks.daily(requests_per_day=1)
    assert send(daily, clocks)
    daily.settle(10, 0, counted=False)
    assert send(daily, clocks)


def test_a_day_that_begins_at_an_hour_ends_at_once() -> None:
    clocks = Clocks()
    daily = clocks.daily([(NOON - 3600, 5, 50)], requests_per_day=5, day_starts_at="00:00")
    assert daily.wait(1, clocks.now) == pytest.approx(12 * 3600)
    clocks.pass_by(12 * 3600 + 1)
    assert sum(send(daily, clocks) for _ in range(9)) == 5
    assert daily.wait(1, clocks.now) == pytest.approx(DAY_S, abs=2)


@pytest.mark.parametrize("jump", [-20 * 3600.0, 20 * 3600.0])
@pytest.mark.parametrize("starts_at", [None, "00:00"])
def test_a_clock_that_is_set_opens_no_quota(jump: float, starts_at: str | None) -> None:
    clocks = Clocks()
    daily = clocks.daily(requests_per_day=5, day_starts_at=starts_at)
    assert sum(send(daily, clocks) for _ in range(9)) == 5
    clocks.wall_now += jump
    clocks.pass_by(600)
    assert not send(daily, clocks)


def test_a_request_larger_than_the_quota_is_sent_once_a_day() -> None:
    clocks = Clocks()
    daily = clocks.daily(tokens_per_day=100)
    assert send(daily, clocks, 500)
    assert not send(daily, clocks, 1)
