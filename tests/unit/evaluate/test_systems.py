"""How systems are named, and what an earlier evaluation is held against."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from distill.errors import InputError
from distill.evaluate import Generated, Item, Prediction, evaluate, parse_metric
from distill.evaluate.holdout import Holdout
from distill.evaluate.parity import read_earlier
from distill.evaluate.systems import SystemSpec, parse_system

ITEMS = tuple(Item(str(n), ({"role": "user", "content": f"question {n}"},), str(n)) for n in range(5))


@pytest.mark.parametrize(
    ("text", "spec"),
    [
        ("smollm2-135m-instruct", SystemSpec("smollm2-135m-instruct", "weights", "smollm2-135m-instruct")),
        ("before=runs/a/out", SystemSpec("before", "weights", "runs/a/out")),
        ("o/m-q4_0.gguf#o/merged", SystemSpec("m-q4_0.gguf", "weights", "o/m-q4_0.gguf", "o/merged")),
        ("runs/lr=3/out", SystemSpec("out", "weights", "runs/lr=3/out")),
        ("yesterday=run:support-2", SystemSpec("yesterday", "run", "support-2")),
        ("release:router@3", SystemSpec("router@3", "release", "router@3")),
        ("http://127.0.0.1:8000/v1#router", SystemSpec("router", "endpoint", "http://127.0.0.1:8000/v1", "router")),
        ("live=https://h/v1?a=b#org/m", SystemSpec("live", "endpoint", "https://h/v1?a=b", "org/m")),
    ],
)
def test_a_system_is_named(text: str, spec: SystemSpec) -> None:
    assert parse_system(text) == spec


@pytest.mark.parametrize("text", ["live=http://127.0.0.1:8000/v1", "", "  "])
def test_what_names_no_system_is_refused(text: str) -> None:
    with pytest.raises(InputError):
        parse_system(text)


class Listed:
    def __init__(self, name: str, answers: list[str]) -> None:
        self.name, self.answers = name, answers

    def about(self) -> dict[str, Any]:
        return {"answers": self.answers}

    async def answer(self, items: Sequence[Item], progress: Callable[[int], None]) -> Generated:
        return Generated([Prediction(text, 1) for text in self.answers], 1.0)


def score(system: Listed, out: Path, items: tuple[Item, ...] = ITEMS, **options: Any) -> Any:
    metrics = [parse_metric("exact_match")]
    return asyncio.run(evaluate([system], Holdout(items, "test.jsonl"), metrics, out, **options))


def test_parity_with_what_was_measured(tmp_path: Path) -> None:
    score(Listed("student", ["0", "1", "2", "x", "y"]), tmp_path / "then")
    earlier = read_earlier(tmp_path / "then")
    assert earlier.system == "student"
    now = Listed("endpoint", ["0", "1", "2", "3", "z"])
    card = score(now, tmp_path / "now", earlier=earlier, gates=["parity >= 0.9"])
    assert (card.parity.measured, card.parity.equal, card.parity.first_difference) == ("student", 0.6, "3")
    (difference,) = card.parity.differences
    assert difference.value == pytest.approx(0.2)
    assert not card.passed
    assert json.loads((tmp_path / "now/scorecard.json").read_bytes())["parity"]["equal"] == 0.6


def test_parity_is_of_the_same_questions(tmp_path: Path) -> None:
    score(Listed("student", ["0", "1", "2", "3", "4"]), tmp_path / "then")
    other = (Item("0", ({"role": "user", "content": "another"},), "0"), *ITEMS[1:])
    with pytest.raises(InputError, match="item 0 was not asked then"):
        score(Listed("endpoint", ["0"] * 5), tmp_path / "now", other, earlier=read_earlier(tmp_path / "then"))
    with pytest.raises(InputError, match=r"no predictions\.jsonl"):
        read_earlier(tmp_path / "nowhere")
    with pytest.raises(InputError, match="there are: student"):
        read_earlier(tmp_path / "then", "base")
