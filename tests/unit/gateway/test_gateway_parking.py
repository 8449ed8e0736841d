from __future__ import annotations

import random
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from distill.errors import FailureClass, RunError, TeacherError
from distill.gateway.line.parking import Parking


def parking(*, grouped: bool = False) -> Parking:
    found = Parking(random.Random(1))
    found.grouped = grouped
    return found


def failed(kind: FailureClass = FailureClass.OVERLOADED, after: float | None = None) -> TeacherError:
    return TeacherError(kind, "no", retry_after=after)


def fail(state: Parking, times: int, *, now: float = 0.0, every: float = 0.0, proven: bool = True) -> list[bool]:
    return [state.failed(n + 1, failed(), now + n * every, proven=proven) for n in range(times)]


def probe_times(state: Parking, *, now: float, until: float) -> list[float]:
    """When a teacher that goes on failing is asked."""
    times: list[float] = []
    ticket = 1000
    while now < until:
        opens = state.opens(now)
        if opens is not None:
            now = opens
            continue
        ticket += 1
        times.append(now)
        state.probes(ticket)
        assert state.opens(now) == float("inf")  # one at a time
        state.failed(ticket, failed(), now + 0.1, proven=True)
        state.ended(ticket)
    return times


def test_failures_in_a_row_park_and_an_answer_between_them_does_not() -> None:
    state = parking()
    assert fail(state, 7) == [False] * 7
    state.answered(8, 0.1, 1.0)
    assert fail(state, 8, now=2.0) == [False] * 7 + [True]
    assert state.shut
    assert "overloaded" in state.state(2.0)


def test_slow_failures_are_few() -> None:
    assert fail(parking(), 3, every=31.0) == [False, False, True]


def test_a_teacher_alone_that_never_answered_is_left_to_its_circuit() -> None:
    assert not any(fail(parking(), 50, proven=False))
    assert any(fail(parking(grouped=True), 8, proven=False))


def test_refusals_and_limits_are_no_outage() -> None:
    state = parking(grouped=True)
    for kind in (FailureClass.RATE_LIMITED, FailureClass.BAD_REQUEST, FailureClass.FILTERED):
        assert not any(state.failed(1, failed(kind), 0.0, proven=True) for _ in range(30))


def test_probes_are_one_at_a_time_at_growing_intervals() -> None:
    state = parking()
    fail(state, 8)
    times = probe_times(state, now=0.0, until=600.0)
    gaps = [b - a for a, b in pairwise(times)]
    assert 0.7 <= times[0] <= 1.3
    assert all(b > 1.15 * a for a, b in pairwise(gaps[:5]))
    assert 44 <= max(gaps) <= 76
    assert len(times) < 20


def test_what_was_under_way_when_it_was_parked_does_not_stretch_the_interval() -> None:
    state = parking()
    fail(state, 64)
    assert state.until <= 1.3


def test_the_first_answer_opens_and_soon_after_the_intervals_go_on() -> None:
    state = parking()
    fail(state, 8)
    last = probe_times(state, now=0.0, until=40.0)[-1]
    state.probes(5000)
    assert state.answered(5000, 0.1, last + 50)
    assert not state.shut
    assert not fail(state, 7, now=last + 51)[-1]
    assert fail(state, 1, now=last + 51)[-1]
    assert state.until > last + 51 + 10  # it fell over at once: the next look is not a second later
    assert state.times == 2


def test_a_named_time_is_kept() -> None:
    state = parking()
    fail(state, 7)
    assert state.failed(8, failed(after=30.0), 0.0, proven=True)
    assert state.until >= 30


def test_a_quota_without_a_time_is_looked_at_ever_more_seldom() -> None:
    state = parking()
    waits: list[float] = []
    now = 0.0
    for _ in range(9):
        state.used_up(None, now)
        waits.append(state.until - now)
        now = state.until
    assert waits[:3] == [60.0, 120.0, 240.0]
    assert waits[-1] == 3600.0
    assert state.used_up(18_000.0, now) is False
    assert state.until == now + 18_000


def test_given_up_is_for_good() -> None:
    state = parking()
    state.lost(RunError("no key"), 0.0)
    assert state.opens(1e9) == float("inf")
    assert state.state(1.0) == "given up: no key"


def test_far_slower_than_its_own_median_parks_where_another_can_answer() -> None:
    for up in (True, False):
        state, rng = parking(grouped=True), random.Random(2)
        for n in range(200):
            assert not state.answered(n + 1, rng.uniform(0.5, 2.0), n * 1.0, elsewhere=lambda: up)  # noqa: B023
        turned = [state.answered(300 + n, 30.0, 300.0 + n, elsewhere=lambda: up) for n in range(20)]  # noqa: B023
        assert any(turned) == state.shut == up
        if up:
            assert "slow" in state.state(320.0)
            state.probes(900)
            assert not state.answered(900, 30.0, 330.0)  # still slow
            state.ended(900)
            state.probes(901)
            assert state.answered(901, 1.0, 400.0)
            assert not state.shut


@given(st.lists(st.floats(0.05, 4.0), min_size=50, max_size=300))
def test_answers_of_different_lengths_never_park(latencies: list[float]) -> None:
    state = parking(grouped=True)
    assert not any(
        state.answered(n + 1, latency, float(n), elsewhere=lambda: True) for n, latency in enumerate(latencies)
    )
