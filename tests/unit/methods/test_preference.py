from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from methods_kit import Script, answer, billed, examples, failures, method, rows, slot

from distill.errors import BudgetReached, FailureClass, TeacherError

PROMPTS = {
    "p": "Question",
    "w": "Write one",
    "j": "JUDGE {{ question }}: [{{ a }}] or [{{ b }}]",
    "r": "JUDGE {{ question }}: [{{ answer }}]",
}
TEACHERS: dict[str, Any] = {"main": {}, "other": {}, "judge": {"sampling": {"temperature": 0.9, "max_tokens": 9}}}


def preference(folder: Path, **section: Any) -> Any:
    rubric = section.get("mode") == "rubric"
    given = {
        "kind": "preference",
        "prompt": "p",
        "candidates": ["main"],
        "judge": "judge",
        "judge_prompt": "r" if rubric else "j",
        **section,
    }
    return method(folder, given, PROMPTS, **TEACHERS)


def said_by(quality: dict[str, float], texts: list[Any], **judged: Any) -> Script:
    """Candidates say `texts` in turn; the judge knows the quality of every text. `biased` always prefers A."""
    drawn = iter(texts)

    def say(request: Any, sample: int) -> Any:
        user = request.messages[0].content
        if user == "Write one":
            return answer("Why?", cost="0.0000001")
        if not user.startswith("JUDGE"):
            return next(drawn)
        shown = [quality[text] for text in re.findall(r"\[(.*?)\]", user)]
        if judged.get("broken"):
            return answer("hm", cost="0.003")
        if len(shown) == 1:
            return answer(f'{{"score": {shown[0]:g}}}', cost="0.003")
        better = "A" if judged.get("biased") or shown[0] > shown[1] else "tie" if shown[0] == shown[1] else "B"
        return answer(f'{{"winner": "{better}"}}', cost="0.003")

    return Script(say)


async def test_the_better_answer_is_chosen_in_both_orders(tmp_path: Path) -> None:
    one = preference(tmp_path, candidates=["main", "other"])
    ask = said_by({"good": 9, "bad": 2}, ["bad", "good"])
    (row,) = await one(slot(), ask)
    assert (row.chosen, row.rejected, row.teacher) == ("good", "bad", "other")
    assert [(m.role, m.content) for m in row.messages] == [("user", "Question")]
    assert dict(row.scores) == {"margin": 1, "chosen_score": 1, "rejected_score": 0, "agreement": 1}
    assert ask.users[2:] == ["JUDGE Question: [bad] or [good]", "JUDGE Question: [good] or [bad]"]
    assert (row.cost, len(row.keys)) == (ask.spent, 4)
    assert (one.rows_per_slot, one.requests_per_slot) == (1, 4)


async def test_candidates_have_their_temperature_and_the_judge_its_own(tmp_path: Path) -> None:
    ask = said_by({"a": 1, "b": 2, "c": 3}, ["a", "b", "c"])
    await preference(tmp_path, temperatures=[0.2, 0.9, 0.9], max_tokens=50)(slot(), ask)
    assert [(r.params.temperature, sample) for r, sample in ask.asked[:3]] == [(0.2, 0), (0.9, 0), (0.9, 1)]
    assert {(r.params.temperature, r.params.max_tokens) for r, _ in ask.asked[3:]} == {(0.0, 9)}
    ask = said_by({"a": 1, "b": 2}, ["a", "b"])
    await preference(tmp_path, temperatures=[0.2, 0.9], judge_temperature=None)(slot(), ask)
    assert ask.asked[-1][0].params.temperature == 0.9


@pytest.mark.parametrize(
    ("quality", "judged", "reason"),
    [
        ({"a": 5, "b": 5}, {}, "no difference"),
        ({"a": 5, "b": 6}, {"biased": True}, "changes its mind with the order"),
    ],
)
async def test_ties_and_disagreement_are_failures(tmp_path: Path, quality: Any, judged: Any, reason: str) -> None:
    ask = said_by(quality, ["a", "b"], **judged)
    (lost,) = await preference(tmp_path, temperatures=[0.2, 0.9])(slot(), ask)
    assert (lost.failure, lost.cost, len(lost.keys)) == (FailureClass.TIE, ask.spent, 4)
    assert reason in lost.message


async def test_a_judge_that_cannot_be_understood_is_asked_once_more(tmp_path: Path) -> None:
    ask = said_by({"a": 5, "b": 6}, ["a", "b"], broken=True)
    (lost,) = await preference(tmp_path, temperatures=[0.2, 0.9])(slot(), ask)
    assert (lost.failure, lost.raw, lost.cost) == (FailureClass.UNPARSED, "hm", ask.spent)
    assert len(ask.asked) == 6


async def test_best_and_worst_of_many(tmp_path: Path) -> None:
    ask = said_by({"a": 5, "b": 9, "c": 2, "d": 7}, ["a", "b", "c", "d"])
    one = preference(tmp_path, candidates=["main", "other"], temperatures=[0.2, 0.9])
    (row,) = await one(slot(), ask)
    assert (row.chosen, row.rejected, row.scores["margin"]) == ("b", "c", 3)
    assert one.requests_per_slot == 4 + 12


async def test_all_pairs_and_the_margin_of_a_rubric(tmp_path: Path) -> None:
    one = preference(tmp_path, temperatures=[0.1, 0.5, 0.9], mode="rubric", pairs="all", margin=3)
    ask = said_by({"a": 5, "b": 9, "c": 3}, ["a", "b", "c"])
    outcomes = await one(slot(), ask)
    assert [(one.id[-1], type(one).__name__) for one in outcomes] == [("0", "Row"), ("1", "Failure"), ("2", "Row")]
    assert [(row.chosen, row.rejected, row.scores["margin"]) for row in rows(outcomes)] == [
        ("b", "a", 4),
        ("b", "c", 6),
    ]
    assert "5 to 3" in failures(outcomes)[0].message
    assert billed(outcomes) == ask.spent
    assert (one.rows_per_slot, one.requests_per_slot) == (3, 6)


async def test_equal_scores_are_no_pair_even_without_a_margin(tmp_path: Path) -> None:
    ask = said_by({"a": 5, "b": 5}, ["a", "b"])
    (lost,) = await preference(tmp_path, temperatures=[0.1, 0.5], mode="rubric", margin=0)(slot(), ask)
    assert lost.failure is FailureClass.TIE


async def test_equal_candidates_are_judged_once(tmp_path: Path) -> None:
    ask = said_by({"a": 5, "b": 6}, ["a", " a\n", "b"])
    (row,) = await preference(tmp_path, temperatures=[0.1, 0.5, 0.9])(slot(), ask)
    assert (row.chosen, row.cost, len(ask.asked)) == ("b", ask.spent, 5)
    ask = said_by({}, ["a", "a"])
    (lost,) = await preference(tmp_path, temperatures=[0.1, 0.5])(slot(), ask)
    assert (lost.failure, lost.raw, lost.cost) == (FailureClass.TIE, "a", ask.spent)


async def test_a_failed_candidate_leaves_the_others(tmp_path: Path) -> None:
    error = TeacherError(FailureClass.TIMEOUT, "no reply")
    ask = said_by({"a": 5, "b": 6}, ["a", error, "b"])
    row, lost = await preference(tmp_path, temperatures=[0.1, 0.5, 0.9])(slot(), ask)
    assert (row.id[-1], row.chosen, lost.id[-1], lost.failure) == ("0", "b", "1", FailureClass.TIMEOUT)
    ask = said_by({}, ["a", answer("x", finish="length")])
    (lost,) = await preference(tmp_path, temperatures=[0.1, 0.5])(slot(), ask)
    assert (lost.failure, lost.cost) == (FailureClass.LENGTH, ask.spent)


async def test_a_halt_of_the_judge_passes(tmp_path: Path) -> None:
    ask = Script(lambda r, s: BudgetReached("cap") if "JUDGE" in r.messages[-1].content else f"{r.params.temperature}")
    with pytest.raises(BudgetReached):
        await preference(tmp_path, temperatures=[0.1, 0.5])(slot(), ask)


@examples
@given(
    st.lists(st.sampled_from(["a", "b", "c", "cut", "late"]), min_size=2, max_size=4),
    st.dictionaries(st.sampled_from("abc"), st.integers(1, 10), min_size=3, max_size=3),
    st.sampled_from(["pairwise", "rubric"]),
    st.sampled_from(["all", "best_worst"]),
    st.lists(st.integers(0, 5), min_size=7, max_size=7),
)
async def test_bills_are_exact_and_order_does_not_matter(
    tmp_path_factory: Any, drawn: list[str], quality: dict[str, float], mode: str, pairs: str, delays: list[int]
) -> None:
    folder: Path = tmp_path_factory.getbasetemp() / "pairs"
    texts = [
        TeacherError(FailureClass.TIMEOUT, "late")
        if text == "late"
        else answer(text, finish="length" if text == "cut" else "stop", cost="0.02")
        for text in drawn
    ]
    temperatures = [0.1 * n for n in range(len(drawn))]
    one = preference(folder, temperatures=temperatures, mode=mode, pairs=pairs, input="w")
    ask = said_by(quality, list(texts))
    outcomes = await one(slot(), ask)
    assert outcomes
    assert billed(outcomes) == ask.spent
    assert len({outcome.id for outcome in outcomes}) == len(outcomes)
    assert all(quality[row.chosen or ""] > quality[row.rejected or ""] for row in rows(outcomes))
    late = said_by(quality, list(texts))
    late.delay = lambda n: delays[n % 7]
    assert outcomes == await one(slot(), late)
