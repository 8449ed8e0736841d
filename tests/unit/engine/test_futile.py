"""A plan whose every answer comes to nothing is not worth finishing; one that is only hard is."""

from __future__ import annotations

import pytest

from distill.dataset import Failure, Row
from distill.engine.decide import Outcome
from distill.engine.futile import ENOUGH, Futility
from distill.errors import FailureClass
from distill.planning import Slot, Topic

SLOT = Slot("s-0", 0, Topic(("a",)))


def failed(kind: FailureClass = FailureClass.LENGTH) -> Outcome:
    return ("a",), [Failure("s-0-0", SLOT, kind, "cut at max_tokens")]


def made() -> Outcome:
    return ("a",), [Row("s-0-0", SLOT, (), "main")]


def test_one_reason_from_the_beginning_ends_the_run_and_says_what_to_do() -> None:
    futility = Futility()
    assert futility.watch([failed()] * (ENOUGH - 1)) is None
    error = futility.watch([failed()] * 5)
    assert error is not None
    assert "(length)" in error.message
    assert "cut at max_tokens" in error.message
    assert "raise_max_tokens" in (error.hint or "")
    assert futility.watch([failed()] * 100) is None  # said once


@pytest.mark.parametrize("other", [made(), failed(FailureClass.REFUSED), (("a",), [])])
def test_anything_else_among_the_first_lets_it_go_on(other: Outcome) -> None:
    futility = Futility()
    assert futility.watch([failed()] * 10 + [other]) is None
    assert futility.watch([failed()] * 1000) is None


@pytest.mark.parametrize("kind", [FailureClass.UNVERIFIED, FailureClass.TIE])
def test_hard_tasks_may_fail_most_of_the_time(kind: FailureClass) -> None:
    assert Futility().watch([failed(kind)] * 1000) is None


def test_how_outcomes_are_batched_does_not_matter() -> None:
    one_by_one = Futility()
    ends = [one_by_one.watch([failed()]) for _ in range(ENOUGH)]
    assert [end is not None for end in ends] == [False] * (ENOUGH - 1) + [True]
