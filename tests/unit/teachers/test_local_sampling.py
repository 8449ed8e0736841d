"""Tokens are drawn from the distribution that was asked for, row by row."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from distill.teachers.local.sampling import Draw, draw_tokens, uniform

PLAIN = Draw(temperature=1.0, top_p=1.0, top_k=0, min_p=0.0, seed=1)


def many(logits: list[float], draw: Draw, count: int = 4000) -> dict[int, float]:
    """Share of each token over many steps of one row."""
    rows = torch.tensor([logits] * count)
    tokens = draw_tokens(rows, [draw] * count, list(range(count)))
    return {token: tokens.count(token) / count for token in set(tokens)}


def test_greedy_takes_the_largest() -> None:
    logits = torch.tensor([[0.1, 3.0, 2.9], [5.0, -1.0, 4.9]])
    greedy = Draw(temperature=0.0, top_p=0.9, top_k=40, min_p=0.0, seed=3)
    assert draw_tokens(logits, [greedy, greedy], [0, 7]) == [1, 0]


def test_shares_follow_the_softmax() -> None:
    shares = many([0.0, 1.0, 2.0], PLAIN)
    expected = torch.tensor([0.0, 1.0, 2.0]).softmax(0)
    for token in range(3):
        assert abs(shares[token] - float(expected[token])) < 0.03


def test_temperature_comes_last() -> None:
    # top-p 0.6 leaves the first two at temperature 1; taken after temperature 5 it would leave all three.
    shares = many([2.0, 1.5, 0.0], Draw(temperature=5.0, top_p=0.6, top_k=0, min_p=0.0, seed=1))
    assert set(shares) == {0, 1}
    assert abs(shares[0] - 0.525) < 0.03


def test_top_k_and_min_p_cut() -> None:
    assert set(many([1.0, 1.0, 1.0, 0.9], Draw(1.0, 1.0, 3, 0.0, 1))) == {0, 1, 2}
    assert set(many([1.0, 1.0, -2.0], Draw(1.0, 1.0, 0, 0.1, 1))) == {0, 1}


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**31 - 1), st.integers(0, 500), st.integers(1, 6), st.data())
def test_a_row_does_not_depend_on_its_neighbours(seed: int, step: int, rows: int, data: st.DataObject) -> None:
    generator = torch.Generator().manual_seed(data.draw(st.integers(0, 1000)))
    logits = torch.randn((rows, 50), generator=generator)
    mine = Draw(0.9, 0.95, 40, 0.05, seed)
    others = [data.draw(st.sampled_from([PLAIN, mine, Draw(0.0, 1.0, 1, 0.0, 5), Draw(2.0, 0.5, 3, 0.0, 9)]))] * rows
    place = data.draw(st.integers(0, rows - 1))
    together = [*others[:place], mine, *others[place + 1 :]]
    assert (
        draw_tokens(logits, together, [step] * rows)[place] == draw_tokens(logits[place : place + 1], [mine], [step])[0]
    )


def test_a_last_bit_rarely_changes_a_draw() -> None:
    logits = torch.randn((2000, 100), generator=torch.Generator().manual_seed(0)) * 3
    nudged = logits + torch.randn(logits.shape, generator=torch.Generator().manual_seed(1)) * 1e-4
    draws, steps = [Draw(0.9, 0.95, 40, 0.05, 7)] * 2000, list(range(2000))
    before, after = draw_tokens(logits, draws, steps), draw_tokens(nudged, draws, steps)
    assert sum(a != b for a, b in zip(before, after, strict=True)) < 10


def test_noise_is_uniform_and_its_own_for_seed_step_and_id() -> None:
    ids = np.arange(20_000)[None, :]
    noise = uniform([5], [0], ids)[0]
    assert noise.min() > 0
    assert noise.max() < 1
    assert abs(noise.mean() - 0.5) < 0.01
    assert abs(noise.var() - 1 / 12) < 0.005
    for other in (uniform([6], [0], ids)[0], uniform([5], [1], ids)[0]):
        assert abs(float(np.corrcoef(noise, other)[0, 1])) < 0.03
