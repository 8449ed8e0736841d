from __future__ import annotations

import random

from distill.errors import FailureClass, TeacherError
from distill.gateway.retries import Circuit, backoff, may_be_billed
from distill.teachers import Reply


def failed(kind: FailureClass = FailureClass.OVERLOADED, after: float | None = None) -> TeacherError:
    return TeacherError(kind, "no", retry_after=after)


def test_waiting_doubles_with_full_jitter() -> None:
    rng = random.Random(1)
    for attempt in range(1, 8):
        draws = [backoff(attempt, failed(), rng, proven=True) for _ in range(400)]
        bound = 0.5 * 2 ** (attempt - 1)
        assert min(draws) < 0.1 * bound
        assert 0.9 * bound < max(draws) <= bound


def test_a_named_time_is_kept() -> None:
    rng = random.Random(1)
    assert all(7 <= backoff(1, failed(after=7.0), rng, proven=True) <= 8 for _ in range(100))


def test_a_server_that_was_never_there_is_given_up_soon() -> None:
    rng = random.Random(1)
    refused = failed(FailureClass.CONNECTION)
    assert max(sum(backoff(n, refused, rng, proven=False) for n in range(1, 6)) for _ in range(100)) < 5


def test_the_circuit_opens_on_one_reason_and_on_nothing_else() -> None:
    circuit = Circuit()
    for n in range(9):
        assert circuit.call_failed(failed()) is None, n
    assert circuit.call_failed(failed(FailureClass.TIMEOUT)) is None
    for _ in range(9):
        circuit.call_failed(failed())
    circuit.answered()
    trips = [circuit.call_failed(failed()) for _ in range(10)]
    assert trips[:9] == [None] * 9
    assert trips[9] is not None
    assert (trips[9].failure, trips[9].count, trips[9].proven) == (FailureClass.OVERLOADED, 10, True)


def test_connections_that_never_worked_are_counted_by_the_attempt() -> None:
    circuit = Circuit()
    refused = failed(FailureClass.CONNECTION)
    trips = [circuit.attempt_failed(refused, 0.3 * n) for n in range(10)]
    assert trips[:9] == [None] * 9
    assert trips[9] is not None
    assert not trips[9].proven


def trips_at(circuit: Circuit, kind: FailureClass, *, every: float, after: float | None = None) -> float:
    """The time at which a teacher that fails every attempt is given up."""
    now = 0.0
    while circuit.attempt_failed(failed(kind, after), now) is None:
        now += every
        assert now < 100_000
    return now


def test_a_teacher_that_never_answered_is_given_up_by_the_clock() -> None:
    assert 30 <= trips_at(Circuit(), FailureClass.RATE_LIMITED, every=1) <= 31
    assert 9 * 20 <= trips_at(Circuit(), FailureClass.OVERLOADED, every=20) <= 9 * 20 + 20  # ten attempts at least


def test_a_time_that_was_named_is_waited_for_three_times() -> None:
    assert 180 <= trips_at(Circuit(), FailureClass.RATE_LIMITED, every=6, after=60) <= 186


def test_a_teacher_that_has_answered_gets_ten_minutes() -> None:
    circuit = Circuit()
    circuit.answered()
    assert 600 <= trips_at(circuit, FailureClass.RATE_LIMITED, every=5) <= 605


def test_timeouts_are_counted_by_the_call_alone() -> None:
    circuit = Circuit()
    slow = failed(FailureClass.TIMEOUT)
    assert all(circuit.attempt_failed(slow, 120.0 * n) is None for n in range(100))


def test_only_attempts_that_were_sent_may_be_billed() -> None:
    assert may_be_billed(failed(FailureClass.TIMEOUT), None)
    assert may_be_billed(failed(FailureClass.CONNECTION), None)
    assert may_be_billed(failed(FailureClass.MALFORMED), Reply(200, b"<html>"))
    assert may_be_billed(failed(FailureClass.TIMEOUT), Reply(504, b""))
    assert not may_be_billed(failed(FailureClass.RATE_LIMITED), Reply(429, b""))
    refused = failed(FailureClass.CONNECTION)
    refused.__cause__ = ConnectionRefusedError()
    assert not may_be_billed(refused, None)
