"""Rounds plan what is missing over what a leaf yields, and give up a leaf that yields nothing."""

from __future__ import annotations

from decimal import Decimal

from distill.engine.accounting import Account
from distill.engine.rounds import BARREN_ROUNDS, plan_round

A, B = ("a",), ("b", "c")


def test_the_first_round_plans_exactly_the_target() -> None:
    account = Account.open({A: 10, B: 7})
    assert plan_round(account, rows_per_slot=1) == {A: 10, B: 7}
    assert plan_round(account, rows_per_slot=5) == {A: 2, B: 2}


def test_the_first_round_plans_for_what_filters_are_expected_to_take() -> None:
    account = Account.open({A: 8, B: 8})
    account.leaves[B].slots, account.leaves[B].kept = 8, 8 - 1
    wanted = plan_round(account, rows_per_slot=1, expected_yield=0.5)
    assert wanted == {A: 16, B: 2}, "what a leaf has yielded says more than what was expected of it"


def test_a_later_round_asks_for_more_where_less_was_accepted() -> None:
    account = Account.open({A: 10, B: 10})
    account.leaves[A].slots = account.leaves[B].slots = 10
    for _ in range(5):
        account.keep(A, Decimal(0))
    for _ in range(9):
        account.keep(B, Decimal(0))
    wanted = plan_round(account, rows_per_slot=1)
    assert wanted == {A: 10, B: 2}


def test_one_unlucky_slot_of_many_rows_is_no_dry_leaf() -> None:
    leaves = [("leaf", str(number)) for number in range(20)]
    account = Account.open(dict.fromkeys(leaves, 5))
    for leaf in leaves:
        account.leaves[leaf].slots = 1
        for _ in range(0 if leaf == leaves[0] else 4):
            account.keep(leaf, Decimal(0))
    wanted = plan_round(account, rows_per_slot=5)
    assert wanted == dict.fromkeys(leaves, 1) | {leaves[0]: 3}


def test_a_leaf_that_yields_nothing_is_given_up_and_said_to_be_short() -> None:
    account = Account.open({A: 10, B: 1})
    account.leaves[A].slots = 40
    account.leaves[A].barren_rounds = BARREN_ROUNDS
    account.keep(B, Decimal(0))
    assert plan_round(account, rows_per_slot=1) == {}
    assert account.short() == {"a": 10}


def test_a_stingy_leaf_does_not_take_the_whole_budget() -> None:
    account = Account.open({A: 10})
    account.leaves[A].slots = 1000
    assert plan_round(account, rows_per_slot=1)[A] <= 80


def test_fates_add_up() -> None:
    account = Account.open({A: 3})
    account.pending = 4
    account.keep(A, Decimal("0.1"))
    account.reject(A, "exact", "duplicate", Decimal("0.2"))
    account.fail(A, "timeout", Decimal(0))
    account.pending -= 3
    shown = account.as_json()
    assert shown["planned"] == 4 == shown["kept"] + 1 + 1 + shown["pending"]
    assert account.cost_kept + account.cost_rejected + account.cost_failed == Decimal("0.3")
