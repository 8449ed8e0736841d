"""Every wrong item has one class, told by rules that a person would agree with."""

from __future__ import annotations

import json
from typing import Any

import pytest

from distill.evaluate import Item, Prediction, Rules
from distill.evaluate.examples import count_classes, side_by_side
from distill.evaluate.failures import CLASSES, Failure
from distill.methods.validation import compile_schema

SCHEMA = {
    "type": "object",
    "properties": {"intent": {"enum": ["lost", "rate"]}, "amount": {"type": ["number", "null"]}},
    "required": ["intent", "amount"],
    "additionalProperties": False,
}


def item(question: str, answer: Any, number: int = 0, leaf: str = "") -> Item:
    text = answer if isinstance(answer, str) else json.dumps(answer)
    return Item(f"i{number}", ({"role": "user", "content": question},), text, leaf)


ROUTED = [item(f"message {n}", {"intent": ("lost", "rate")[n % 2], "amount": n}, n) for n in range(8)]


def why(text: str, of: Item, items: list[Item], finish: str = "stop", schema: Any = None) -> Failure:
    rules = Rules(items, compile_schema(schema, "test") if schema else None)
    return rules.why(of, Prediction(text, 7, finish))


@pytest.mark.parametrize(
    ("text", "finish", "kind"),
    [
        ("", "timeout", "no_answer"),
        ("", "refused", "wrong_refusal"),
        ("", "filtered", "wrong_refusal"),
        ("  \n", "stop", "empty"),
        ("I'm sorry, but I can't help with that.", "stop", "wrong_refusal"),
        ('{"intent": "lost", "am', "length", "truncated"),
        ("The intent is lost.", "stop", "wrong_format"),
        ('Sure: {"intent": "lost", "amount": 0}', "stop", "wrong_format"),
        ('{"intent": "lost"}', "stop", "omission"),
        ('{"intent": "stolen", "amount": 0}', "stop", "hallucination"),
        ('{"intent": "lost", "amount": "much"}', "stop", "wrong_format"),
        ('{"intent": "lost", "amount": 0, "mood": "bad"}', "stop", "wrong_format"),
        ('{"intent": "rate", "amount": 0}', "stop", "wrong_value"),
        ('{"intent": "stolen"}', "stop", "omission"),
    ],
)
def test_the_schema_says_what_is_due(text: str, finish: str, kind: str) -> None:
    assert why(text, ROUTED[0], ROUTED, finish, SCHEMA).kind == kind


@pytest.mark.parametrize(
    ("text", "kind", "said"),
    [
        ('{"intent": "lost"}', "omission", "amount is missing"),
        ('{"intent": "stolen", "amount": 0}', "hallucination", "intent: 'stolen' is none of the 2 values"),
        ('{"intent": "rate", "amount": 0}', "wrong_value", "intent: 'rate'"),
        ('{"intent": "lost", "amount": 0, "mood": "bad"}', "wrong_format", "mood was not asked for"),
        ('["lost"]', "omission", "amount is missing"),
    ],
)
def test_without_a_schema_the_right_answers_say_it(text: str, kind: str, said: str) -> None:
    assert why(text, ROUTED[0], ROUTED) == Failure(kind, said)  # type: ignore[arg-type]


def test_a_value_that_the_question_does_not_hold_is_invented() -> None:
    names = ["Ada Moss", "Ben Frost", "Cleo Hart"]
    items = [item(f"My name is {name}, call me.", {"name": name}, n) for n, name in enumerate(names)]
    assert why('{"name": "John Smith"}', items[0], items).kind == "hallucination"
    assert why('{"name": "call me"}', items[0], items).kind == "wrong_value"


def test_lists_are_compared_element_by_element() -> None:
    items = [item(f"We need bolts, nuts and washers, order {n}.", {"parts": ["bolts", "nuts"]}, n) for n in range(1)]
    assert why('{"parts": ["bolts"]}', items[0], items).kind == "omission"
    assert why('{"parts": ["nuts", "washers"]}', items[0], items).kind == "wrong_value"
    assert why('{"parts": ["nuts", "bolts", "rivets"]}', items[0], items).kind == "hallucination"


LABELLED = [item(f"text {n}", ("spam", "ham")[n % 2], n) for n in range(10)]


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("ham", "wrong_value"),
        ("Spam.", "wrong_format"),
        ("It is spam, I think", "wrong_format"),
        ("newsletter", "hallucination"),
    ],
)
def test_labels_are_a_closed_set(text: str, kind: str) -> None:
    assert why(text, LABELLED[0], LABELLED).kind == kind


def test_free_text_is_another_value_unless_the_right_one_stands_in_it() -> None:
    items = [item(f"What is {n} + 1?", str(n + 1), n) for n in range(5)]
    assert why("The answer is 3.", items[2], items).kind == "wrong_format"
    assert why("4", items[2], items).kind == "wrong_value"


def test_counts_and_examples_stand_side_by_side() -> None:
    rules = Rules(LABELLED)
    said = {"base": ["no idea"] * 10, "student": ["spam", "spam"] * 5}
    wrong = {
        name: [
            None if text == of.answer else rules.why(of, Prediction(text))
            for of, text in zip(LABELLED, texts, strict=True)
        ]
        for name, texts in said.items()
    }
    assert count_classes(wrong["student"]) == {"wrong_value": 5}
    assert count_classes(wrong["base"]) == {"hallucination": 10}
    examples = side_by_side(LABELLED, said, wrong, "student")
    assert len(examples) == 3
    assert [example.systems["student"].failure for example in examples] == ["wrong_value"] * 3
    assert examples[0].systems["base"].failure == "hallucination"
    assert {example.id for example in examples} <= {"i1", "i3", "i5", "i7", "i9"}
    assert set(count_classes(wrong["base"])) <= set(CLASSES)
