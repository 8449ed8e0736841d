from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from methods_kit import examples

from distill.methods.judging import read_score, read_winner
from distill.methods.structured import Unstructured


@pytest.mark.parametrize(
    ("text", "winner"),
    [
        ('{"winner": "A"}', "A"),
        ('```json\n{"Winner": "b"}\n```', "B"),
        ('{"reason": "A is long", "winner": "tie"}', "tie"),
        ('{"winner": "Answer B"}', "B"),
        ("A is right about this, B is not. [[A]]", "A"),
        ("Both [[C]]", "tie"),
        ("Winner: **B**", "B"),
        ("The winner is A.", "A"),
        ("Answer A is better.", "A"),
        ("B", "B"),
        ("**tie**", "tie"),
    ],
)
def test_verdicts(text: str, winner: str) -> None:
    assert read_winner(text) == winner


@pytest.mark.parametrize(
    "text", ["", "A or B", "a good answer", "[[A]] or rather [[B]]", '{"winner": "C3"}', '{"w": 1}']
)
def test_what_is_no_verdict(text: str) -> None:
    with pytest.raises(Unstructured, match="winner"):
        read_winner(text)


@pytest.mark.parametrize(
    ("text", "score"),
    [
        ('{"score": 7}', 7),
        ('{"score": "8/10"}', 8),
        ('{"score": 6.5}', 6.5),
        ("Rating: [[9]]", 9),
        ("I give it 8 out of 10.", 8),
        ("Score: 10", 10),
        ("7", 7),
        ("**7/10**", 7),
    ],
)
def test_scores(text: str, score: float) -> None:
    assert read_score(text) == score


@pytest.mark.parametrize(
    "text", ["", "good", '{"score": 11}', '{"score": 0}', "3 or 4", '{"score": true}', "Score: 85"]
)
def test_what_is_no_score(text: str) -> None:
    with pytest.raises(Unstructured, match="1 to 10"):
        read_score(text)


@examples
@given(st.text(max_size=80))
def test_any_text_is_a_verdict_or_none(text: str) -> None:
    for read, allowed in ((read_winner, {"A", "B", "tie"}), (read_score, None)):
        try:
            found = read(text)
        except Unstructured:
            continue
        assert found in allowed if allowed else 1 <= float(found) <= 10
