from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from distill.train.order import batches, sampler

LENGTHS = st.lists(st.integers(1, 500), min_size=1, max_size=300)


@given(LENGTHS, st.integers(1, 16), st.integers(0, 9), st.integers(0, 3))
def test_every_row_comes_once_an_epoch_in_full_batches(lengths: list[int], size: int, seed: int, epoch: int) -> None:
    made = batches(lengths, size, seed=seed, epoch=epoch)
    assert sorted(i for batch in made for i in batch) == list(range(len(lengths)))
    assert all(len(batch) == size for batch in made[:-1])
    assert made == batches(lengths, size, seed=seed, epoch=epoch)


@given(LENGTHS.filter(lambda lengths: len(lengths) >= 8))
def test_the_longest_full_batch_comes_first(lengths: list[int]) -> None:
    full = [batch for batch in batches(lengths, 4, seed=0, epoch=0) if len(batch) == 4]
    assert max(lengths[i] for i in full[0]) == max(lengths[i] for batch in full for i in batch)


def test_rows_of_a_batch_are_alike_in_length_and_epochs_differ() -> None:
    lengths = [10 + 37 * n % 190 for n in range(256)]
    made = batches(lengths, 8, seed=1, epoch=1)
    padded = sum(len(batch) * max(lengths[i] for i in batch) for batch in made)
    assert padded < 1.05 * sum(lengths)
    assert made != batches(lengths, 8, seed=1, epoch=2)


def test_the_sampler_follows_the_epoch_it_is_told() -> None:
    order = sampler([1, 2, 3, 4, 5, 6], 2, seed=3)
    first = list(order)
    order.set_epoch(1)
    assert list(order) == [i for batch in batches([1, 2, 3, 4, 5, 6], 2, seed=3, epoch=1) for i in batch] != first
