from __future__ import annotations

import random
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from distill.dataset.splits import Splitter

ROWS = st.lists(
    st.tuples(
        st.integers(0, 40),
        st.lists(st.sampled_from("abcdef"), max_size=2, unique=True),
        st.sampled_from(["x", "y", "z"]),
    ),
    max_size=120,
).map(lambda rows: [(slot, tuple(dict(rows_by_slot(rows))[slot]), leaf) for slot, _, leaf in rows])


def rows_by_slot(rows):
    first: dict[int, list[str]] = {}
    for slot, seeds, _ in rows:
        first.setdefault(slot, seeds)  # a slot always shows the same seeds
    return first.items()


def split(rows, *, share=0.2, seed=1):
    splitter = Splitter(share=share, seed=seed)
    for slot, seeds, leaf in rows:
        splitter.add(slot, seeds, (leaf,))
    count = splitter.choose()
    sides = [splitter.is_validation(slot, seeds) for slot, seeds, _ in rows]
    assert sum(sides) == count
    return sides


@given(ROWS, st.integers(0, 3), st.floats(0, 0.9))
def test_relatives_stay_together_and_train_keeps_every_leaf_it_can(rows, seed, share):
    sides = split(rows, share=share, seed=seed)
    for by in (lambda row: row[0], lambda row: tuple(sorted(row[1])) or row[0]):
        groups: dict[object, set[bool]] = {}
        for row, side in zip(rows, sides, strict=True):
            groups.setdefault(by(row), set()).add(side)
        assert all(len(group) == 1 for group in groups.values())
    if rows:
        assert not all(sides)


@given(ROWS, st.randoms())
def test_the_order_of_rows_does_not_matter(rows, rng):
    order = list(range(len(rows)))
    rng.shuffle(order)
    sides, shuffled = split(rows), split([rows[n] for n in order])
    assert [sides[n] for n in order] == shuffled


def test_every_leaf_gives_its_share():
    rows = [(n, (), "abcd"[n % 4]) for n in range(4000)]
    sides = split(rows, share=0.1)
    per_leaf = Counter(leaf for (_, _, leaf), side in zip(rows, sides, strict=True) if side)
    assert per_leaf == {"a": 100, "b": 100, "c": 100, "d": 100}
    assert split(rows, share=0.1, seed=2) != sides


def test_three_seeds_a_leaf_still_leave_a_validation_split():
    rng = random.Random(0)
    combos = [("1", "2"), ("1", "3"), ("2", "3")]
    rows = [
        (n, tuple(f"{leaf}{i}" for i in rng.choice(combos)), f"leaf{leaf}") for n in range(1600) for leaf in [n % 16]
    ]
    sides = split(rows, share=0.1)
    assert 0.06 < sum(sides) / len(rows) < 0.14
    train = {leaf for (_, _, leaf), side in zip(rows, sides, strict=True) if not side}
    assert len(train) == 16


def test_one_group_cannot_be_split():
    assert not any(split([(n, ("s",), "x") for n in range(50)]))
