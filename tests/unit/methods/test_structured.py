from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from methods_kit import examples

from distill.errors import InputError
from distill.methods.structured import Structure, Unstructured, parse

OBJECT = {
    "type": "object",
    "properties": {"a": {"type": "integer"}, "b": {"type": "string"}},
    "required": ["a"],
    "additionalProperties": False,
}

scalars = st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=20)
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=4)
)
containers = st.lists(values, max_size=4) | st.dictionaries(st.text(max_size=6), values, max_size=4)
prose = st.text(st.characters(codec="utf-8", exclude_characters='{}[]"`\\'), max_size=40)


@examples
@given(values)
def test_json_as_it_is_keeps_the_teachers_characters(value: object) -> None:
    text = json.dumps(value, indent=2)
    found = parse(f"\n {text} \n")
    assert (found.value, found.text, found.how) == (value, text, "strict")


@examples
@given(containers, prose, prose)
def test_a_value_in_prose_is_found(value: object, before: str, after: str) -> None:
    text = json.dumps(value)
    found = parse(f"Sure: {before} {text} {after}")
    assert (found.value, found.text, found.how) == (value, text, "extracted")


@examples
@given(containers, prose)
def test_a_fenced_value_is_found(value: object, before: str) -> None:
    assert parse(f"Here: {before}\n```json\n{json.dumps(value, indent=1)}\n```\nDone.").value == value


@examples
@given(st.text(max_size=200))
def test_any_text_is_read_or_refused_with_a_reason(text: str) -> None:
    try:
        found = parse(text, OBJECT)
    except Unstructured:
        return
    assert isinstance(found.value["a"], int)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('{"a": 1, "b": "x",}', {"a": 1, "b": "x"}),
        ("{'a': 1, 'b': 'x'}", {"a": 1, "b": "x"}),
        ('{a: 1, b: "x"}', {"a": 1, "b": "x"}),
        ('The answer: {"a": 1, "b": "x"', {"a": 1, "b": "x"}),
        ('```json\n{"a": 1 // one\n}\n```', {"a": 1}),
    ],
)
def test_broken_json_is_repaired_and_marked(text: str, value: object) -> None:
    found = parse(text, OBJECT)
    assert (found.value, found.how) == (value, "repaired")
    assert json.loads(found.text) == value


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('{"a": 1, "a": 2}', "stands twice"),
        ('{"a": 1, "a": 2', "stands twice"),
        ('```\n{"a": 1, "a": 2}\n```', "stands twice"),
        ('{"a": NaN}', "NaN"),
        ("[1, -Infinity]", "NaN and infinities"),
        ('{"a": NaN, "b": 1', "NaN"),
        ('"\\ud800"', "no JSON value"),
        ("no JSON here", "no JSON value"),
        ("", "no JSON value"),
        ("[" * 5000, "not valid JSON"),
        ("[" * 5000 + "]" * 5000, "not valid JSON"),
    ],
)
def test_what_a_repair_would_have_to_choose_is_refused(text: str, reason: str) -> None:
    with pytest.raises(Unstructured, match=reason):
        parse(text)


def test_the_first_value_that_satisfies_the_schema_counts() -> None:
    text = 'As in [1], {"b": "no a"} is wrong, {"a": 5} is right, {"a": 6} comes late.'
    assert parse(text, OBJECT).value == {"a": 5}


def test_the_reason_names_place_and_rule() -> None:
    with pytest.raises(Unstructured, match=r"\$\.a: 'x' is not of type 'integer'"):
        parse('{"a": "x"}', OBJECT)


def test_sound_json_with_the_wrong_content_is_not_repaired_into_something_else() -> None:
    with pytest.raises(Unstructured, match=r"\$: 'a' is a required property"):
        parse('{"b": "say, b: yes", "c": {"a": 1}}', {"required": ["a"]})


def test_the_inside_of_a_broken_value_does_not_pass_for_the_value() -> None:
    with pytest.raises(Unstructured):
        parse('{"a": 1, "inner": {"a": 2}', OBJECT)


def test_braces_in_strings_do_not_count() -> None:
    assert parse('see {"b": "}{", "a": 1} there', OBJECT).value == {"b": "}{", "a": 1}


def test_a_wrong_schema_is_the_users_error_and_names_the_file() -> None:
    with pytest.raises(InputError, match=r"order\.json: not a JSON Schema"):
        Structure({"type": "objekt"}, name="order.json")


@pytest.mark.parametrize("reference", ["http://127.0.0.1:9/schema.json", "#/$defs/missing", "other.json#/a"])
def test_references_that_lead_nowhere_are_found_at_once_and_nothing_is_fetched(reference: str) -> None:
    with pytest.raises(InputError, match="leads nowhere"):
        Structure({"properties": {"a": {"$ref": reference}}})


def test_references_inside_the_schema_hold() -> None:
    schema = {"$id": "https://example.org/s", "$defs": {"n": {"type": "integer"}}, "items": {"$ref": "#/$defs/n"}}
    with pytest.raises(Unstructured, match=r"\$\[1\]"):
        parse('[1, "x"]', schema)
