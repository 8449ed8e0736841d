"""What a student forgot is asked of base and student, and a gate can name it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from distill.assets import shipped
from distill.errors import InputError
from distill.evaluate import Generated, Item, Prediction, evaluate, parse_metric, read_holdout
from distill.evaluate.holdout import Holdout

TASK = Holdout(tuple(Item(str(n), ({"role": "user", "content": f"task {n}"},), "done") for n in range(4)), "task.jsonl")
GENERAL = Holdout(
    tuple(Item(f"g{n}", ({"role": "user", "content": f"general {n}"},), f"fact {n}", "ab"[n % 2]) for n in range(40)),
    "general.jsonl",
)


@dataclass
class Knows:
    """Answers the task, and the first `facts` general questions in a sentence."""

    name: str
    facts: int
    max_tokens: int = 128
    latency_items: int = 8

    def about(self) -> dict[str, Any]:
        return {"facts": self.facts, "max_tokens": self.max_tokens}

    async def answer(self, items: Sequence[Item], progress: Callable[[int], None]) -> Generated:
        LOG.append((self.name, items[0].id, self.max_tokens, self.latency_items))
        told = [Prediction(self._say(item), 5) for item in items]
        return Generated(told, 1.0)

    def _say(self, item: Item) -> str:
        kind, number = item.question.split()
        if kind == "task":
            return "done"
        return f"It is Fact {number}, of course." if int(number) < self.facts else "I do not know, fact 999."


LOG: list[tuple[str, str, int, int]] = []


def score(systems: list[Any], out: Path, **options: Any) -> Any:
    LOG.clear()
    return asyncio.run(evaluate(systems, TASK, [parse_metric("exact_match")], out, **options))


def test_the_drop_is_measured_between_base_and_student(tmp_path: Path) -> None:
    card = score([Knows("base", 32), Knows("student", 20)], tmp_path, general=GENERAL, gates=["forgetting <= 0.05"])
    found = card.forgetting
    assert (found.base, found.system, found.n) == ("base", "student", 40)
    assert (found.before, found.after, found.drop) == pytest.approx((0.8, 0.5, 0.3))
    assert 0.1 < found.low < 0.3 < found.high < 0.5
    assert found.p_value < 0.01
    assert found.per_leaf["a"] == {"n": 20, "before": 0.8, "after": 0.5}
    assert not card.gates[0].passed
    assert json.loads((tmp_path / "scorecard.json").read_bytes())["forgetting"]["drop"] == pytest.approx(0.3)
    # Short answers, and no second measurement of latency.
    assert ("base", "g0", 48, 0) in LOG


def test_general_answers_are_kept(tmp_path: Path) -> None:
    score([Knows("base", 32), Knows("student", 20)], tmp_path, general=GENERAL)
    score([Knows("base", 32), Knows("student", 30)], tmp_path, general=GENERAL)
    assert [(name, first) for name, first, *_ in LOG] == [("student", "0"), ("student", "g0")]
    rows = [json.loads(line) for line in (tmp_path / "general/predictions.jsonl").read_bytes().splitlines()]
    assert len(rows) == 80


def test_it_needs_a_system_before(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="a system before it"):
        score([Knows("student", 3)], tmp_path, general=GENERAL)
    assert not LOG


def test_the_shipped_set_can_be_answered() -> None:
    general = read_holdout(shipped("data") / "general/questions.jsonl")
    assert 60 <= len(general.items) <= 100
    assert len({item.question for item in general.items}) == len(general.items)
    metric = parse_metric("contains")
    first = [json.loads(item.answer)[0] if item.answer.startswith("[") else item.answer for item in general.items]
    assert metric.count(general.items, [f"I think it is {text}." for text in first]).value == 1.0
    assert metric.count(general.items, ["I do not know."] * len(first)).value == 0.0


@pytest.mark.parametrize(
    ("answer", "text", "right"),
    [
        ("Paris", "The capital is PARIS.", True),
        ("Paris", "Parisians live there.", False),
        ("8", "It has 8 legs", True),
        ("8", "It has 18 legs", False),
        ("8", "8.5 of them", False),
        ("1000", "about 1,000 of them", True),
        ('["8", "eight"]', "Eight.", True),
        ("New York", "new\nyork", True),
    ],
)
def test_contains_looks_for_whole_words(answer: str, text: str, right: bool) -> None:
    item = Item("1", ({"role": "user", "content": "?"},), answer)
    assert parse_metric("contains").count([item], [text]).value == float(right)
