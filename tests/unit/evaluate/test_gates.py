"""Gates on speed, on money, and against earlier scores."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from distill.errors import InputError
from distill.evaluate.gates import Baseline, baselines_of, cannot_hold, check_gates, parse_gate, read_baseline
from distill.evaluate.intervals import Interval
from distill.evaluate.scorecard import Latency, SystemScore

LEAVES = {"cards": {"n": 20, "macro_f1:field=i": 0.90}, "loans": {"n": 5, "macro_f1:field=i": 0.40}}
BEFORE = Baseline("support@3", "d1", {"macro_f1:field=i": 0.80}, LEAVES)
AGAINST = {"release:support@3": BEFORE}


def score(**per_leaf: float) -> SystemScore:
    leaves = {leaf: {"n": 20, "macro_f1:field=i": value} for leaf, value in per_leaf.items()}
    figure = {"macro_f1:field=i": Interval(0.78, 0.7, 0.85)}
    return SystemScore(figure, leaves, {}, 50.0, 1.0, latency=Latency(0.2, 0.95, 8, "single"))


def verdict(gate: str, of: SystemScore, **more: Any) -> Any:
    (found,) = check_gates([gate], of, more or None, AGAINST)
    return found


def test_speed_and_its_shortfall() -> None:
    found = verdict("p95_ms <= 800", score())
    assert (found.value, found.passed, found.short) == (950, False, pytest.approx(150))
    assert verdict("tokens_per_second >= 40", score()).passed
    assert verdict("p50_ms <= 200", score()).passed


def test_a_price_that_is_not_known_passes_nothing() -> None:
    assert not verdict("usd_per_1k <= 100", score()).passed
    priced = SystemScore({}, {}, {}, None, 1.0, cost=SimpleNamespace(usd=0.4))  # type: ignore[arg-type]
    assert verdict("usd_per_1k <= 0.5", priced).passed


def test_no_leaf_may_lose_more_than_it_is_allowed_to() -> None:
    gate = "leaf_drop(macro_f1, release:support@3) <= 0.03"
    kept = verdict(gate, score(cards=0.88, loans=0.45))
    assert (kept.passed, kept.value) == (True, pytest.approx(0.02))
    lost = verdict(gate, score(cards=0.95, loans=0.30))
    assert (lost.passed, lost.short) == (False, pytest.approx(0.07))
    assert lost.note == "loans, 5 items, the worst of 2 against support@3"
    overall = verdict("drop(macro_f1, release:support@3) <= 0.01", score(cards=1))
    assert (overall.passed, overall.value) == (False, pytest.approx(0.02))


def test_figures_of_other_parts_can_be_named() -> None:
    assert verdict("forgetting <= 0.05", score(), forgetting=0.02).passed
    assert not verdict("cost_ratio <= 0.05", score(), cost_ratio=float("nan")).passed


@pytest.mark.parametrize(
    ("gate", "says"),
    [
        ("leaf_drop(macro_f1) <= 0.03", "against what?"),
        ("leaf_drop(exact_match, release:support@3) <= 0.03", "no such metric"),
        ("p95 <= 800", "did you mean p95_ms"),
        ("leaf_drop(macro_f1, release:other@1) <= 0.03", "release:other@1 is not at hand"),
    ],
)
def test_a_gate_that_means_nothing_is_explained(gate: str, says: str) -> None:
    with pytest.raises(InputError) as caught:
        check_gates([gate], score(cards=1), None, AGAINST)
    assert says in str(caught.value)


def test_an_older_release_without_figures_by_leaf_is_said() -> None:
    bare = Baseline("support@1", "d1", {}, {})
    with pytest.raises(InputError, match="support@1 has no figures of macro_f1:field=i by leaf"):
        check_gates(["leaf_drop(macro_f1, release:s) <= 0"], score(cards=1), None, {"release:s": bare})


def test_a_score_on_another_holdout_is_no_baseline() -> None:
    gates = ["leaf_drop(macro_f1, release:support@3) <= 0.03", "macro_f1 >= 0.5"]
    assert baselines_of(gates, "d1", lambda words: AGAINST[words]) == AGAINST
    with pytest.raises(InputError, match="support@3 was scored on another holdout"):
        baselines_of(gates, "d2", lambda words: AGAINST[words])


def test_a_scorecard_is_a_baseline(tmp_path: Path) -> None:
    system = {"metrics": {"m": {"value": 0.5}}, "per_leaf": {"a": {"n": 3, "m": 0.5}}}
    card = {"systems": {"student": system}, "subject": "student", "holdout_digest": "d"}
    (tmp_path / "scorecard.json").write_text(json.dumps(card))
    found = read_baseline(tmp_path)
    assert (found.metrics, found.per_leaf, found.holdout_digest) == ({"m": 0.5}, system["per_leaf"], "d")
    (tmp_path / "scorecard.json").write_text("{}")
    with pytest.raises(InputError, match="not a scorecard"):
        read_baseline(tmp_path)


@pytest.mark.parametrize(
    ("gate", "never"),
    [("m > 1", True), ("m >= 1", False), ("m >= 4", True), ("m < 0", True), ("m == 0.5", False), ("m == 2", True)],
)
def test_what_no_value_can_pass_is_known_beforehand(gate: str, never: bool) -> None:
    assert cannot_hold(parse_gate(gate), 0.0, 1.0) == never
    assert not cannot_hold(parse_gate("judge >= 4"), 1.0, 5.0)
