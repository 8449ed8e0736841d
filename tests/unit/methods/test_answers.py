from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from methods_kit import examples

from distill.methods.answers import Extracted, answer_key, extractor, same_text

words = st.text(st.characters(categories=["L", "N"]), min_size=1, max_size=12)
chains = st.lists(words, max_size=5).map("\n".join)


@pytest.mark.parametrize(
    ("rule", "text", "chain", "answer"),
    [
        ("last_line", "First.\nSecond.\n\n42\n", "First.\nSecond.", "42"),
        ("last_line", "So.\n**Answer: 42**", "So.", "42"),
        ("last_line", "So.\nThe final answer is 42", "So.", "42"),
        ("last_line", "So.\nanswering machines", "So.", "answering machines"),
        ("last_line", "42", None, "42"),
        ("boxed", "Steps.\nSo $\\boxed{\\frac{1}{2}}$.", "Steps.", "\\frac{1}{2}"),
        ("boxed", "As \\boxed{1} is no more, it is \\boxed{2}", "As \\boxed{1} is no more, it is", "2"),
        ("tag", "Steps <answer> 42 </answer>", "Steps", "42"),
        ("tag", "<answer>1</answer> no, <ANSWER>2", "<answer>1</answer> no,", "2"),
        ("after", "5 #### 6\nmore\n#### 42\nbye", "5 #### 6\nmore\nbye", "42"),
        ("after", "Steps ####\n42", "Steps", "42"),
        ("json", 'Steps {"x": 1} then\n```json\n{"n": 42}\n```', None, '{"n": 42}'),
        ("all", " 42 ", None, "42"),
    ],
)
def test_rules(rule: str, text: str, chain: str | None, answer: str) -> None:
    found = extractor(rule)(text)
    assert found is not None
    assert found.answer == answer
    if rule != "json":
        assert found.chain == chain


@pytest.mark.parametrize(
    ("rule", "text"),
    [
        ("last_line", ""),
        ("boxed", "42"),
        ("boxed", "\\boxed{4"),
        ("boxed", "\\boxed{}"),
        ("tag", "42"),
        ("after", "42"),
        ("after", "42 ####"),
        ("json", "[42]"),
        ("json", '{"a": '),
        ("all", " \n"),
    ],
)
def test_a_rule_does_not_guess(rule: str, text: str) -> None:
    assert extractor(rule)(text) is None


def test_a_field_holds_the_answer_and_the_others_the_chain() -> None:
    rule = extractor("json", field="answer")
    assert rule('{"reasoning": "Two and two.", "answer": 4}') == Extracted("Two and two.", "4")
    assert rule('Well.\n```json\n{"answer": "four"}\n```') == Extracted("Well.", "four")
    assert rule('{"result": 4}') is None


def test_the_marker_is_the_users() -> None:
    assert extractor("after", marker="=>")("a => b") == Extracted("a", "b")


@examples
@given(chains, words)
def test_what_was_written_is_found(chain: str, answer: str) -> None:
    forms = {
        "boxed": f"{chain}\n\\boxed{{{answer}}}",
        "tag": f"{chain}\n<answer>{answer}</answer>",
        "after": f"{chain}\n#### {answer}",
    }
    for rule, text in forms.items():
        assert extractor(rule)(text) == Extracted(chain.strip() or None, answer)
    found = extractor("json", field="a")(json.dumps({"r": chain, "a": answer}))
    assert found == Extracted(chain or None, answer)


@examples
@given(st.text(max_size=100), st.sampled_from(["last_line", "boxed", "tag", "after", "json", "all"]))
def test_an_answer_is_never_blank(text: str, rule: str) -> None:
    found = extractor(rule)(text)
    assert found is None or (found.answer == found.answer.strip() != "" and found.chain != "")


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("1,000", "$1000.00"),
        ("1/2", "0.5"),
        ("Paris.", " paris"),
        ('"Paris"', "**PARIS**"),
        ('{"a":1,"b":2}', '{"b": 2, "a": 1}'),
    ],
)
def test_equal_answers_have_one_key(one: str, other: str) -> None:
    assert answer_key(one) == answer_key(other)


@pytest.mark.parametrize(
    ("one", "other"), [("10", "100"), ("Paris", "Pariss"), ("[1, 2]", "[2, 1]"), ("5 of 6", "6 of 6")]
)
def test_different_answers_have_different_keys(one: str, other: str) -> None:
    assert answer_key(one) != answer_key(other)


@examples
@given(st.text(max_size=40))
def test_normalised_text_stays_as_it_is(text: str) -> None:
    assert same_text(same_text(text)) == same_text(text)
