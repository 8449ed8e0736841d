"""What is kept of the teacher and what it costs, in the scorecard and for gates."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from distill.errors import InputError
from distill.evaluate import Generated, Item, Prediction, evaluate, parse_metric
from distill.evaluate.holdout import Holdout
from distill.evaluate.metrics.base import shares
from distill.evaluate.retention import cost_of, cost_ratio, retention

ITEMS = tuple(Item(str(n), ({"role": "user", "content": f"question {n}"},), "yes", "ab"[n % 2]) for n in range(40))
HOLDOUT = Holdout(ITEMS, "test.jsonl")


def generated(right: int, *, usd: float | None = None, seconds: float = 4.0, timed: bool = True) -> Generated:
    texts = ["yes"] * right + ["no"] * (len(ITEMS) - right)
    return Generated([Prediction(text, 10, "stop", 100, usd) for text in texts], seconds, timed=timed)


class Fixed:
    """A system with given predictions, that counts how often it is asked."""

    def __init__(self, name: str, answers: Generated, version: int = 1) -> None:
        self.name, self.answers, self.version, self.asked = name, answers, version, 0

    def about(self) -> dict[str, Any]:
        return {"version": self.version}

    async def answer(self, items: Sequence[Item], progress: Callable[[int], None]) -> Generated:
        self.asked += 1
        return Generated(self.answers.predictions[: len(items)], self.answers.seconds, timed=self.answers.timed)


def score(systems: list[Fixed], out: Path, **options: Any) -> Any:
    metrics = [parse_metric(name) for name in options.pop("metrics", ("exact_match",))]
    return asyncio.run(evaluate(systems, HOLDOUT, metrics, out, **options))


def test_a_ratio_has_the_interval_of_a_paired_bootstrap() -> None:
    ours, theirs = shares([1.0] * 27 + [0.0] * 13), shares([1.0] * 36 + [0.0] * 4)
    (kept,) = retention("student", {"exact_match": ours}, "teacher", {"exact_match": theirs})
    assert kept.value == pytest.approx(27 / 36)
    assert kept.low is not None
    assert kept.high is not None
    # Drawn by hand: the same items for both.
    random = np.random.default_rng(5)
    draws = random.integers(0, 40, size=(4000, 40))
    by_hand = np.percentile(ours.right[draws].sum(1) / theirs.right[draws].sum(1), (2.5, 97.5))
    assert (kept.low, kept.high) == pytest.approx(tuple(by_hand), abs=0.03)


def test_no_ratio_against_nothing() -> None:
    none, some = shares([0.0] * 40), shares([1.0] * 40)
    assert retention("student", {"m": some}, "teacher", {"m": none}) == []
    rare = shares([1.0] + [0.0] * 39)
    (kept,) = retention("student", {"m": some}, "teacher", {"m": rare})
    assert (kept.low, kept.high) == (None, None)


def test_a_price_comes_before_seconds_and_stored_answers_are_not_timed() -> None:
    priced = cost_of(generated(40, usd=0.0004), here=False)
    assert priced.usd == pytest.approx(0.4)
    assert "4,000 tokens in and 400 out" in priced.basis
    here = cost_of(generated(40), here=True, usd_per_hour=0.36)
    assert here.seconds == pytest.approx(100)
    assert here.usd == pytest.approx(0.01)
    assert "0.36 USD an hour" in here.basis
    unpriced = cost_of(generated(40), here=True)
    assert (unpriced.usd, unpriced.seconds) == (None, 100)
    assert cost_of(generated(40, timed=False), here=True, usd_per_hour=1).usd is None
    assert cost_of(generated(40), here=False).usd is None
    ratio = cost_ratio("student", here, "teacher", priced)
    assert ratio is not None
    assert ratio.value == pytest.approx(0.025)
    by_time = cost_ratio("student", unpriced, "teacher", here)
    assert by_time is not None
    assert (by_time.value, by_time.basis) == (1.0, "seconds of this machine")
    assert cost_ratio("student", unpriced, "teacher", priced) is None


def test_retention_and_cost_stand_in_the_scorecard_and_gates_name_them(tmp_path: Path) -> None:
    student, teacher = Fixed("student", generated(27)), Fixed("teacher", generated(36, usd=0.0004))
    gates = ["retention(exact_match) >= 0.7", "cost_ratio <= 0.01", "exact_match >= 0.6"]
    card = score([student, teacher], tmp_path, gates=gates, usd_per_hour=0.36)
    assert [gate.passed for gate in card.gates] == [True, False, True]
    written = json.loads((tmp_path / "scorecard.json").read_bytes())
    assert written["retention"][0]["value"] == pytest.approx(0.75)
    assert written["cost_ratios"][0]["value"] == pytest.approx(0.025)
    assert written["systems"]["student"]["cost"]["seconds"] == pytest.approx(100)
    assert written["systems"]["student"]["wrong"] == {"hallucination": 13}
    assert written["examples"][0]["systems"]["teacher"]["text"]


def test_what_cannot_be_said_passes_no_gate(tmp_path: Path) -> None:
    student, teacher = Fixed("student", generated(27)), Fixed("teacher", generated(36, usd=0.0004))
    card = score([student, teacher], tmp_path, gates=["cost_ratio <= 1"])
    assert not card.passed
    assert card.as_json()["gates"][0]["value"] is None


def test_a_gate_on_retention_needs_a_teacher(tmp_path: Path) -> None:
    student = Fixed("student", generated(27))
    with pytest.raises(InputError, match="no such metric"):
        score([student], tmp_path, gates=["retention(exact_match) >= 0.7"])
    assert student.asked == 0


def test_only_the_changed_system_answers_again(tmp_path: Path) -> None:
    student, teacher = Fixed("student", generated(27)), Fixed("teacher", generated(36, usd=0.0004))
    score([student, teacher], tmp_path)
    changed = Fixed("student", generated(30), version=2)
    card = score([changed, teacher], tmp_path, metrics=("exact_match", "json_valid"))
    assert (changed.asked, teacher.asked) == (1, 1)
    assert (card.systems["student"].reused, card.systems["teacher"].reused) == (False, True)
    # What an answer cost is kept with it.
    assert card.systems["teacher"].cost.usd == pytest.approx(0.4)
