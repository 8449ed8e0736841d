"""Differences between systems, against scipy where it has the same test."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from distill.evaluate.holdout import Item
from distill.evaluate.intervals import compare
from distill.evaluate.metrics import Counted, parse_metric
from distill.evaluate.metrics.base import shares
from distill.evaluate.statistics import FEW, differences, group_differences, grouped, holm

EXACT = parse_metric("exact_match")


def right(share: float, n: int = 120, seed: int = 0) -> np.ndarray:
    return (np.random.default_rng(seed).random(n) < share).astype(float)


def test_mcnemar_is_the_binomial_test_on_disagreements() -> None:
    a, b = right(0.7), right(0.6, seed=1)
    found = compare(EXACT, "a", shares(a), "b", shares(b))
    only = int(((a == 1) & (b == 0)).sum()), int(((a == 0) & (b == 1)).sum())
    assert found.test == "McNemar exact"
    assert found.p_value == pytest.approx(stats.binomtest(only[0], sum(only)).pvalue)


def test_graded_figures_are_permuted_as_scipy_does() -> None:
    random = np.random.default_rng(3)
    a = random.random(60)
    b = np.clip(a - 0.04 + 0.15 * random.standard_normal(60), 0, 1)
    found = compare(EXACT, "a", shares(a), "b", shares(b))
    wanted = stats.permutation_test(
        (a, b), lambda x, y: np.mean(x) - np.mean(y), permutation_type="samples", n_resamples=9999, rng=0
    )
    assert found.test == "permutation"
    assert found.p_value == pytest.approx(wanted.pvalue, abs=0.02)
    assert 0.005 < found.p_value < 0.2


def test_the_paired_interval_is_scipys_bootstrap_of_the_differences() -> None:
    a, b = right(0.8, 200), right(0.7, 200, seed=2)
    found = compare(EXACT, "a", shares(a), "b", shares(b))
    wanted = stats.bootstrap((a - b,), np.mean, method="percentile", n_resamples=5000, rng=0).confidence_interval
    assert (found.low, found.high) == pytest.approx((wanted.low, wanted.high), abs=0.015)


def test_an_item_that_does_not_count_is_no_disagreement() -> None:
    weight = np.array([1.0, 1.0, 1.0, 0.0])
    a, b = shares([1.0, 1.0, 0.0, 1.0], weight), shares([1.0, 0.0, 0.0, 0.0], weight)
    assert a.value == pytest.approx(2 / 3)
    assert compare(EXACT, "a", a, "b", b).p_value == 1  # one disagreement, not two


def test_holm_steps_down_and_never_falls_behind_a_smaller_one() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.9]) == [1.0, 1.0]
    assert holm([]) == []


def test_every_system_is_held_against_the_first_and_p_values_are_corrected_together() -> None:
    counted = {name: {"exact_match": shares(right(p, seed=s))} for s, (name, p) in enumerate(
        [("base", 0.3), ("student", 0.8), ("teacher", 0.9)]
    )}  # fmt: skip
    found = differences([EXACT], counted, "student")
    assert [(d.system, d.against) for d in found] == [("student", "base"), ("student", "teacher"), ("teacher", "base")]
    assert [d.p_adjusted for d in found] == pytest.approx(holm([d.p_value for d in found]))
    other = differences([EXACT], counted, "student", "teacher")
    assert [(d.system, d.against) for d in other] == [("student", "base"), ("student", "teacher"), ("base", "teacher")]


def items(leaves: list[str], difficulty: str = "") -> list[Item]:
    return [Item(str(n), (), "", leaf=leaf, difficulty=difficulty) for n, leaf in enumerate(leaves)]


def test_nothing_is_claimed_of_a_group_with_few_items() -> None:
    leaves = ["big"] * 40 + ["small"] * (FEW - 1)
    base, student = np.zeros(len(leaves)), np.ones(len(leaves))
    counted = {name: {"exact_match": shares(values)} for name, values in (("base", base), ("student", student))}
    big, small = group_differences(items(leaves), [EXACT], counted, "student")
    assert (big.group, big.n, big.value) == ("big", 40, 1)
    assert big.p_adjusted is not None
    assert big.p_adjusted < 1e-6
    assert (small.group, small.value, small.low, small.p_value) == ("small", 1, None, None)
    assert group_differences(items(leaves), [EXACT], counted, "base") == ()


def test_groups_hold_their_own_figures_and_leave_out_what_does_not_count() -> None:
    weight = np.array([1.0, 1.0, 0.0])
    count: dict[str, Counted] = {"m": shares([1.0, 0.0, 1.0], weight), "all": shares([1.0, 0.0, 1.0])}
    assert grouped(["a", "a", "b"], count) == {"a": {"n": 2, "m": 0.5, "all": 0.5}, "b": {"n": 1, "all": 1.0}}
