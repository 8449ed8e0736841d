from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distill.planning.interleave import Interleave, apportion
from distill.planning.mixing import key_of, permuted

weights = st.lists(st.integers(1, 40), min_size=1, max_size=25)


def shares_of(numbers: list[int]) -> list[Fraction]:
    return [Fraction(number, sum(numbers)) for number in numbers]


@settings(max_examples=60, deadline=None)
@given(weights, st.integers(0, 2**32))
def test_every_prefix_keeps_to_the_shares(numbers: list[int], seed: int) -> None:
    shares = shares_of(numbers)
    turns = Interleave(shares, [key_of(seed, item) for item in range(len(shares))])
    counts = [0] * len(shares)
    for n in range(1, 300):
        counts[turns.next()] += 1
        for count, share in zip(counts, shares, strict=True):
            assert abs(count - share * n) < 1


def test_equal_items_come_in_another_order_every_lap_and_for_every_seed() -> None:
    def laps(seed: int) -> list[tuple[int, ...]]:
        turns = Interleave([Fraction(1, 6)] * 6, [key_of(seed, item) for item in range(6)])
        return [tuple(turns.next() for _ in range(6)) for _ in range(10)]

    assert all(sorted(lap) == list(range(6)) for lap in laps(1))
    assert len(set(laps(1))) > 5
    assert laps(1) != laps(2)


@given(st.integers(0, 10_000), weights)
def test_apportion_adds_up_and_stays_within_one(total: int, numbers: list[int]) -> None:
    shares = shares_of(numbers)
    counts = apportion(total, shares)
    assert sum(counts) == total
    assert all(abs(count - share * total) < 1 for count, share in zip(counts, shares, strict=True))


@pytest.mark.parametrize("shares", [[Fraction(1, 2)], [Fraction(0), Fraction(1)]])
def test_shares_that_are_none_are_refused(shares: list[Fraction]) -> None:
    with pytest.raises(ValueError, match="shares"):
        Interleave(shares, [0] * len(shares))


@given(st.integers(1, 700), st.integers(0, 2**64 - 1))
def test_permuted_is_a_permutation(size: int, key: int) -> None:
    assert sorted(permuted(position, size, key) for position in range(size)) == list(range(size))


@given(st.integers(2, 10**40), st.data())
def test_permuted_stays_in_ranges_of_any_size(size: int, data: st.DataObject) -> None:
    first, second = (data.draw(st.integers(0, size - 1)) for _ in range(2))
    there = permuted(first, size, 7), permuted(second, size, 7)
    assert 0 <= there[0] < size
    assert (there[0] == there[1]) == (first == second)
