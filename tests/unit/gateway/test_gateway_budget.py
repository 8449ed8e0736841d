from __future__ import annotations

import asyncio
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distill.errors import BudgetReached
from distill.gateway.budget import Amount, Purse


def purse(usd: str | None = None, tokens: int | None = None) -> Purse:
    return Purse(None if usd is None else Decimal(usd), tokens, spent=Amount(), lost=Amount())


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 400), st.floats(0, 1), st.sampled_from("slr"), st.integers(0, 3)), max_size=60),
    st.integers(100, 2000),
)
def test_the_cap_is_never_passed_and_what_fits_is_served(calls: list[tuple[int, float, str, int]], cap: int) -> None:
    async def main() -> None:
        wallet = purse(tokens=cap)
        served = 0

        async def call(worst: int, share: float, end: str, turns: int) -> None:
            nonlocal served
            amount = Amount(0, worst)
            try:
                await wallet.reserve(amount)
            except BudgetReached:
                return
            served += 1
            check()
            for _ in range(turns):
                await asyncio.sleep(0)
            if end == "s":
                wallet.settle(amount, Amount(0, int(worst * share)))
            elif end == "l":
                wallet.lose(amount)
            else:
                wallet.release(amount)
            check()

        def check() -> None:
            assert wallet.spent.tokens + wallet.lost.tokens + wallet.reserved.tokens <= cap

        async with asyncio.TaskGroup() as group:
            for arguments in calls:
                group.create_task(call(*arguments))
        assert wallet.reserved == Amount()
        if calls and calls[0][0] <= cap:
            assert served >= 1

    asyncio.run(main())


async def test_a_request_waits_while_others_may_still_make_room() -> None:
    wallet = purse(usd="1")
    most = Amount(900_000_000_000, 1)
    await wallet.reserve(most)
    second = asyncio.create_task(wallet.reserve(Amount(500_000_000_000, 1)))
    await asyncio.sleep(0)
    assert not second.done()
    wallet.settle(most, Amount(100_000_000_000, 1))
    await second
    assert wallet.reserved.usd == Decimal("0.5")


async def test_the_error_states_cap_spent_risk_and_the_next_request() -> None:
    wallet = Purse(Decimal("1.50"), 1000, spent=Amount(1_250_000_000_000, 900), lost=Amount(0, 50))
    with pytest.raises(BudgetReached) as caught:
        await wallet.reserve(Amount(300_000_000_000, 10))
    text = str(caught.value)
    assert "cap 1.50 USD, spent 1.25 USD" in text
    assert "the next request could cost 0.3 USD" in text
    assert "cap 1,000 tokens, used 900, at risk in lost calls 50" in text
    assert caught.value.exit_code == 3


async def test_what_costs_nothing_passes_no_cap_in_usd() -> None:
    wallet = Purse(Decimal(0), None, spent=Amount(1, 0), lost=Amount())
    await wallet.reserve(Amount(0, 100))


async def test_a_cancelled_waiter_leaves_no_reservation_behind() -> None:
    wallet = purse(tokens=100)
    await wallet.reserve(Amount(0, 100))
    waiting = asyncio.create_task(wallet.reserve(Amount(0, 100)))
    await asyncio.sleep(0)
    wallet.release(Amount(0, 100))  # grants it
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert wallet.reserved == Amount()
