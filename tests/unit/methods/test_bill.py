from __future__ import annotations

from decimal import Decimal

from hypothesis import given
from hypothesis import strategies as st
from methods_kit import examples

from distill.methods.bill import Bill

money = st.decimals(min_value=0, max_value=1000, places=15, allow_nan=False)


@examples
@given(money, st.integers(0, 10_000), st.integers(0, 10_000), st.integers(1, 64))
def test_shares_add_up_to_the_last_digit(cost: Decimal, tokens_in: int, tokens_out: int, among: int) -> None:
    shares = Bill(("k",), cost, tokens_in, tokens_out).split(among)
    assert len(shares) == among
    assert sum((share.cost for share in shares), Decimal(0)) == cost
    assert sum(share.input for share in shares) == tokens_in
    assert sum(share.output for share in shares) == tokens_out
    assert all(share.cost >= 0 and share.keys == ("k",) for share in shares)


def test_adding_names_an_answer_once() -> None:
    both = Bill(("a", "b"), Decimal(1)) + Bill(("b", "c"), Decimal(2))
    assert both.keys == ("a", "b", "c")
    assert both.cost == 3
