"""The report shows where systems differ, and lets no answer become markup."""

from __future__ import annotations

from typing import Any

from distill.studio.comparison import comparison

HOSTILE = "<script>alert(1)</script>"


def card(**more: Any) -> dict[str, Any]:
    student = {"cost": {"usd": None, "seconds": 12.0, "basis": "measured seconds"}, "wrong": {"wrong_value": 3}}
    teacher = {"cost": {"usd": 0.4, "seconds": None, "basis": "its price"}, "wrong": {"empty": 1}}
    return {"n": 9, "systems": {"student": student, "teacher": teacher}, "wrong_by": "exact_match", **more}


def test_classes_are_counted_beside_each_other() -> None:
    text = "".join(comparison(card()))
    assert "<th>wrong by exact_match</th><th class=n>wrong value</th><th class=n>empty</th>" in text
    assert "<td>teacher</td><td class=n>0</td><td class=n>1</td><td class=n>1</td>" in text
    assert "$0.4000" in text


def test_wrong_answers_stand_side_by_side_as_text() -> None:
    said = {"text": HOSTILE, "failure": "wrong_value", "why": HOSTILE}
    right = {"text": "fine", "failure": None, "why": ""}
    example = {"id": "i1", "leaf": HOSTILE, "question": HOSTILE, "answer": "fine", "systems": {"s": said, "t": right}}
    text = "".join(comparison(card(examples=[example])))
    assert "<script" not in text
    assert "wrong value: &lt;script&gt;" in text
    assert "<td>right</td>" in text


def test_a_scorecard_of_before_is_shown_as_it_was() -> None:
    old = {"n": 9, "systems": {"student": {"metrics": {}}}}
    assert comparison(old) == []
