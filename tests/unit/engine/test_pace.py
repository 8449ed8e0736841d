"""The pace a person reads the end of a night from."""

from __future__ import annotations

import pytest

from distill.engine.pace import Pace


def test_what_the_store_answers_says_nothing_about_the_time_left() -> None:
    pace = Pace()
    for tick in range(80):
        pace.note(tick / 10, tick * 1000, asking=False)
    assert pace.rows_per_second == pytest.approx(10_000)
    assert not pace.asking
    pace.note(8.0, 80_000, asking=True)
    assert pace.rows_per_second == 0  # nothing is known yet
    for second in range(1, 11):
        pace.note(8.0 + second, 80_000 + 5 * second, asking=True)
    assert pace.rows_per_second == pytest.approx(5)


def test_it_is_the_pace_of_the_last_minute() -> None:
    pace = Pace()
    for second in range(600):
        pace.note(float(second), second * 100, asking=True)
    for second in range(600, 662):  # the teacher has gone away
        pace.note(float(second), 59_900, asking=True)
    assert pace.rows_per_second == pytest.approx(0, abs=2)


def test_marks_do_not_pile_up() -> None:
    pace = Pace()
    for tick in range(100_000):
        pace.note(tick / 1000, tick, asking=True)
    assert pace.rows_per_second == pytest.approx(1000, rel=0.01)
    assert len(pace._marks) < 700
