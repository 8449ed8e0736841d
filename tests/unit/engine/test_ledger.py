"""An answer that several slots share is billed once, to the first of them."""

from __future__ import annotations

from decimal import Decimal

from hypothesis import given
from hypothesis import strategies as st

from distill.dataset import Failure, Row
from distill.engine.ledger import Ledger
from distill.errors import FailureClass
from distill.planning import Slot, Topic
from distill.teachers import Answer, Usage

PRICE = Decimal("0.000012")


def answer(key: str, *, reused: bool = False) -> Answer:
    return Answer("text", None, "stop", Usage(), PRICE, key, reused=reused)


def row(number: int, *keys: str, cost: Decimal | None = None) -> Row:
    slot = Slot(f"s-{number}", number, Topic(("a",)))
    return Row(f"s-{number}-0", slot, (), "main", keys, PRICE * len(keys) if cost is None else cost)


def test_the_first_in_slot_order_pays() -> None:
    ledger = Ledger()
    for _ in range(3):
        ledger.note(answer("k"), shared=True)
    costs = [ledger.settle([row(number, "k")])[0].cost for number in range(3)]
    assert costs == [PRICE, 0, 0]


def test_answers_of_one_slot_alone_are_left_as_they_are() -> None:
    ledger = Ledger()
    ledger.note(answer("k"), shared=False)
    rows = [row(0, "k"), row(1, "k")]
    assert ledger.settle(rows) == rows


def test_rows_of_one_slot_share_what_they_do_not_pay() -> None:
    ledger = Ledger()
    ledger.note(answer("k"), shared=True)
    ledger.settle([row(0, "k")])
    slot = [row(1, "k", "own", cost=PRICE * 3 / 2), row(2, "k", cost=PRICE / 2)]
    assert sum(item.cost for item in ledger.settle(slot)) == PRICE


def test_failures_pay_too() -> None:
    ledger = Ledger()
    ledger.note(answer("k"), shared=True)
    slot = Slot("s-0", 0, Topic(("a",)))
    failed = Failure("s-0-0", slot, FailureClass.LENGTH, "cut", keys=("k",), cost=PRICE)
    assert ledger.settle([failed])[0].cost == PRICE
    assert ledger.settle([row(1, "k")])[0].cost == 0


def test_what_other_runs_paid_is_counted_once() -> None:
    ledger = Ledger()
    for _ in range(2):
        ledger.note(answer("k", reused=True), shared=True)
        ledger.note(answer("own", reused=True), shared=False)
    assert ledger.reused == 3 * PRICE


@given(st.lists(st.lists(st.sampled_from("abcd"), unique=True, max_size=4), max_size=20))
def test_the_sum_is_the_price_of_the_distinct_answers(slots: list[list[str]]) -> None:
    ledger = Ledger()
    for keys in slots:
        for key in keys:
            ledger.note(answer(key), shared=True)
    total = sum(item.cost for number, keys in enumerate(slots) for item in ledger.settle([row(number, *keys)]))
    assert total == PRICE * len({key for keys in slots for key in keys})
