"""How the benchmark of kills explains an answer that was paid twice."""

from __future__ import annotations

from benchmarks.overnight.faults import Again, sort


def again(arrived: float, replied: float | None, came_again: float, fault: str | None = None) -> dict[str, object]:
    return {"fault": fault, "arrived": arrived, "replied": replied, "again": came_again}


def test_each_is_explained_by_what_had_become_of_the_request_before() -> None:
    kills = [10.0, 20.0]
    assert sort([again(9.0, None, 12.0), again(9.8, 10.2, 12.0), again(19.9, None, 21.0)], kills) == Again(0, 3, ())
    assert sort([again(9.0, 9.5, 12.0)], kills) == Again(0, 0, (0.5,))
    assert sort([again(9.0, 9.5, 9.9), again(11.0, 11.5, 19.0)], kills) == Again(2, 0, ())  # in one session


def test_a_broken_reply_is_asked_again_whatever_comes_after_it() -> None:
    assert sort([again(9.0, 9.5, 12.0, "reset_mid_body")], [10.0]) == Again(1, 0, ())
    assert sort([again(9.0, None, 12.0, "reset_mid_body")], [10.0]) == Again(0, 1, ())
    assert sort([again(9.0, 9.5, 12.0, "slow")], [10.0]) == Again(0, 0, (0.5,))  # late, and whole


def test_what_was_answered_long_before_a_kill_is_not_hidden_by_a_later_one() -> None:
    assert sort([again(1.0, 1.5, 25.0)], [10.0, 20.0]) == Again(0, 0, (8.5,))
