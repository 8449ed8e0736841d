"""Judges behind an `ask` that answers by rule."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from distill.errors import BudgetReached, FailureClass, InputError, RunError, TeacherError
from distill.evaluate import Generated, Item, Prediction, evaluate, parse_metric
from distill.evaluate.holdout import Holdout
from distill.evaluate.judge import Desk
from distill.prompting import PromptBook
from distill.teachers import Answer, Request, SamplingParams, Usage

QUESTIONS = ("one", "two", "three", "four")
ITEMS = tuple(Item(q, ({"role": "user", "content": q},), f"the answer to {q}") for q in QUESTIONS)


@dataclass
class Ask:
    """Answers by a rule over the prompt, and keeps what it was asked."""

    rule: Callable[[str], str]
    asked: list[Request] = field(default_factory=list)

    async def __call__(self, request: Request, *, sample: int = 0) -> Answer:
        self.asked.append(request)
        await asyncio.sleep(0)
        said = self.rule(request.messages[-1].content)
        if said == "refused":
            raise TeacherError(FailureClass.REFUSED, "no")
        return Answer(said, None, "stop", Usage(100, 5), Decimal("0.002"), "k")


class Listed:
    def __init__(self, name: str, texts: Sequence[str]) -> None:
        self.name, self.texts, self.asked = name, texts, 0

    def about(self) -> dict[str, Any]:
        return {"texts": list(self.texts)}

    async def answer(self, items: Sequence[Item], progress: Callable[[int], None]) -> Generated:
        self.asked += 1
        return Generated([Prediction(text) for text in self.texts], 1.0)


def desk(ask: Ask, *names: str, default: str | None = None, folder: Path | None = None) -> Desk:
    teachers = {name: SamplingParams(temperature=0.9, max_tokens=50) for name in names or ("judge",)}
    return Desk(ask, PromptBook(folder), teachers, default)


def score(systems: list[Listed], out: Path, metric: str, at: Desk | None, **options: Any) -> Any:
    return asyncio.run(evaluate(systems, Holdout(ITEMS), [parse_metric(metric)], out, desk=at, **options))


def part(prompt: str, tag: str) -> str:
    return prompt.split(f"<{tag}>\n")[1].split(f"\n</{tag}>")[0]


def test_the_mean_score_counts_and_the_judge_sees_question_answer_and_reference(tmp_path: Path) -> None:
    def rule(prompt: str) -> str:
        assert "the answer to" in part(prompt, "reference")
        return json.dumps({"score": 5 if part(prompt, "answer") == "good" else 2})

    ask = Ask(rule)
    at = desk(ask)
    card = score([Listed("student", ["good", "good", "bad", "good"])], tmp_path, "judge", at, gates=["judge >= 4.5"])
    found = card.systems["student"]
    assert found.metrics["judge"].value == pytest.approx((5 + 5 + 2 + 5) / 4)
    assert found.details["judge"]["scores"] == {"1": 0, "2": 1, "3": 0, "4": 0, "5": 3}
    assert (card.gates[0].passed, card.gates[0].short) == (False, pytest.approx(0.25))
    assert {request.params.temperature for request in ask.asked} == {0.0}
    assert card.judges_usd == {"judge": pytest.approx(0.008)}


def test_a_score_out_of_range_is_asked_for_again_and_a_lost_one_counts_nowhere(tmp_path: Path) -> None:
    def rule(prompt: str) -> str:
        if "four" in prompt:
            return "refused"
        return '{"score": 4}' if "not what was asked for" in prompt else '{"score": 9}'

    card = score([Listed("student", ["a"] * 4)], tmp_path, "judge", desk(Ask(rule)))
    assert card.systems["student"].metrics["judge"].value == 4
    assert card.systems["student"].details["judge"]["unjudged"] == 1
    with pytest.raises(RunError, match="could not be read on any item"):
        score([Listed("student", ["a"] * 4)], tmp_path, "judge", desk(Ask(lambda _: "hm")))


def test_a_budget_that_is_reached_stops_the_judging(tmp_path: Path) -> None:
    def rule(_: str) -> str:
        raise BudgetReached("the next request could pass the cap")

    system = Listed("student", ["a"] * 4)
    with pytest.raises(BudgetReached):
        score([system], tmp_path, "judge", desk(Ask(rule)))
    # What was answered is kept: the next attempt only judges.
    card = score([system], tmp_path, "judge", desk(Ask(lambda _: '{"score": 4}')))
    assert (system.asked, card.systems["student"].metrics["judge"].value) == (1, 4)


def test_a_judge_that_prefers_a_place_gives_ties(tmp_path: Path) -> None:
    systems = [Listed("base", ["a", "a", "a", "same"]), Listed("student", ["b", "b", "b", "same"])]
    card = score(systems, tmp_path, "judge_pairwise", desk(Ask(lambda _: '{"winner": "A"}')))
    found = card.systems["student"]
    assert found.metrics["judge_pairwise"].value == 0.5
    assert (found.details["judge_pairwise"]["ties"], found.details["judge_pairwise"]["wins"]) == (4, 0)


def test_wins_in_both_orders_count_and_equal_answers_are_not_asked_about(tmp_path: Path) -> None:
    ask = Ask(lambda prompt: json.dumps({"winner": "A" if part(prompt, "answer_a") == "b" else "B"}))
    systems = [Listed("base", ["a", "a", "a", "same"]), Listed("student", ["b", "b", "b", "same"])]
    card = score(systems, tmp_path, "judge_pairwise", desk(ask))
    details = card.systems["student"].details["judge_pairwise"]
    assert (details["wins"], details["ties"], details["losses"], details["against"]) == (3, 1, 0, "base")
    assert card.systems["student"].metrics["judge_pairwise"].value == pytest.approx((3 + 0.5) / 4)
    assert card.systems["base"].metrics["judge_pairwise"].value == 0.5
    assert len(ask.asked) == 6


def test_a_rubric_of_ones_own(tmp_path: Path) -> None:
    (tmp_path / "tone.j2").write_text("Is this polite, for {{ question }}? {{ answer }} Return a JSON object.")
    ask = Ask(lambda prompt: '{"score": 3}' if prompt.startswith("Is this polite") else "no")
    name = f"judge:rubric={tmp_path / 'tone.j2'},teacher=big"
    card = score([Listed("student", ["a"] * 4)], tmp_path, name, desk(ask, "small", "big"))
    assert card.systems["student"].metrics[name].value == 3
    assert {request.teacher for request in ask.asked} == {"big"}


@pytest.mark.parametrize(
    ("metric", "names", "says"),
    [
        ("judge", ("small", "big"), "which teacher judges?"),
        ("judge:teacher=bigg", ("small", "big"), "no such teacher: bigg"),
        ("judge:rubric=none.j2", ("big",), "none.j2"),
    ],
)
def test_who_judges_and_by_what_is_looked_at_before_anything_is_answered(
    metric: str, names: tuple[str, ...], says: str, tmp_path: Path
) -> None:
    ask = Ask(lambda _: '{"score": 3}')
    with pytest.raises(InputError) as caught:
        score([Listed("student", ["a"] * 4)], tmp_path, metric, desk(ask, *names))
    assert says in str(caught.value)
    assert not ask.asked
    assert not (tmp_path / "predictions.jsonl").exists()


def test_without_a_desk_nobody_is_asked(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no teacher can be asked"):
        score([Listed("student", ["a"] * 4)], tmp_path, "judge", None)
