from __future__ import annotations

from bisect import bisect_right

from hypothesis import given, settings
from hypothesis import strategies as st

from distill.gateway.line.limits import Bucket, Estimate, RateLimits
from distill.recipe import Limits


def arrivals(per_minute: float, idle: list[float], count: int) -> list[float]:
    """Requests sent as soon as the bucket allows, with pauses of the client's own in between."""
    bucket, now, times = Bucket(per_minute, 0.0), 0.0, []
    for n in range(count):
        now += idle[n % len(idle)] if idle else 0.0
        while (wait := bucket.wait(1, now)) > 0:
            now += wait
        bucket.take(1)
        times.append(now)
    return times


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 3000), st.lists(st.sampled_from([0.0, 0.0, 0.0, 0.01, 3.0, 70.0]), max_size=5))
def test_no_window_of_a_minute_holds_more_than_the_limit(per_minute: int, idle: list[float]) -> None:
    times = arrivals(per_minute, idle, min(4 * per_minute, 2000))
    for n, start in enumerate(times):  # every sliding window that begins with a request; fixed ones are among them
        assert bisect_right(times, start + 60 - 1e-9) - n <= per_minute


@given(st.sampled_from([60, 600, 6000]))
def test_the_limit_is_used(per_minute: int) -> None:
    times = arrivals(per_minute, [], 3 * per_minute)
    assert len(times) / (times[-1] / 60) >= 0.98 * per_minute


def test_there_is_no_burst_at_the_start() -> None:
    assert sum(time < 1.0 for time in arrivals(600, [], 100)) <= 16


def test_tokens_are_taken_by_estimate_and_settled() -> None:
    limits = RateLimits(Limits(tokens_per_minute=60_000), 0.0)
    now, used = 0.0, 0
    guess, real = Estimate(100, 400), Estimate(120, 80)
    for _ in range(2000):
        while (wait := limits.wait(guess, now)) > 0:
            now += wait
        limits.take(guess)
        limits.settle(guess, real)
        used += 200
    assert 0.97 <= used / (now / 60) / 60_000 <= 1.0


def test_a_request_larger_than_the_bucket_is_sent_and_paid_off() -> None:
    limits = RateLimits(Limits(output_tokens_per_minute=1000), 0.0)
    large = Estimate(0, 5000)
    assert limits.wait(large, 0.0) == 0
    limits.take(large)
    assert limits.wait(Estimate(0, 1), 0.0) > 290
