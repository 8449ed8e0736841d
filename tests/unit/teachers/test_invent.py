"""Made-up values satisfy their schemas, and made-up texts differ."""

from __future__ import annotations

from typing import Any

import jsonschema
import pytest

from distill.teachers.invent import Dice, sentences, value_for

SCHEMAS: list[Any] = [
    {"type": "string"},
    {"type": "string", "minLength": 400},
    {"type": "string", "maxLength": 7},
    {"type": "string", "format": "date"},
    {"type": "integer", "minimum": 3, "maximum": 3},
    {"type": "integer", "exclusiveMinimum": 3, "exclusiveMaximum": 5},
    {"type": "integer", "multipleOf": 7, "minimum": 1, "maximum": 30},
    {"type": "integer", "maximum": -5},
    {"type": "number", "minimum": 0, "maximum": 1},
    {"type": "number", "exclusiveMinimum": 0},
    {"type": "boolean"},
    {"type": "null"},
    {"type": ["string", "null"]},
    {"enum": ["a", 1, None]},
    {"const": {"a": 1}},
    {"type": "array", "items": {"type": "string"}, "minItems": 5},
    {"type": "array", "items": {"type": "integer"}, "minItems": 2, "maxItems": 2},
    {"type": "array", "items": {"enum": ["a", "b", "c"]}, "uniqueItems": True, "minItems": 3},
    {"type": "array", "prefixItems": [{"type": "string"}, {"type": "integer"}], "items": False},
    {"type": "object", "properties": {"a": {"type": "string"}, "b": {"type": "integer"}}, "required": ["a"]},
    {"type": "object", "properties": {"a": {}}, "required": ["a", "z"]},
    {"type": "object", "additionalProperties": {"type": "integer"}, "minProperties": 2},
    {"anyOf": [{"type": "string"}, {"type": "integer"}]},
    {"oneOf": [{"type": "object", "properties": {"kind": {"const": "x"}}, "required": ["kind"]}, {"type": "null"}]},
    {"allOf": [{"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]},
               {"properties": {"b": {"type": "boolean"}}, "required": ["b"]}]},
    {"$ref": "#/$defs/item", "$defs": {"item": {"type": "object", "properties": {"n": {"type": "number"}}}}},
    {"$ref": "#/$defs/tree", "$defs": {"tree": {"type": "object", "required": ["children"], "properties": {
        "children": {"type": "array", "items": {"$ref": "#/$defs/tree"}}}}}},
    {"$ref": "#/$defs/list", "$defs": {"list": {"type": "object", "required": ["next"], "properties": {
        "next": {"anyOf": [{"$ref": "#/$defs/list"}, {"type": "null"}]}}}}},
    {},
    True,
]  # fmt: skip


@pytest.mark.parametrize("schema", SCHEMAS, ids=str)
def test_values_satisfy_their_schema(schema: Any) -> None:
    validator = jsonschema.Draft202012Validator(schema)
    for seed in range(50):
        validator.validate(value_for(schema, Dice(seed)))


def test_equal_seeds_give_equal_values_and_others_differ() -> None:
    schema = {"type": "object", "properties": {"a": {"type": "string"}, "b": {"type": "integer"}}}
    assert value_for(schema, Dice(1)) == value_for(schema, Dice(1))
    assert value_for(schema, Dice(1)) != value_for(schema, Dice(2))


def test_two_texts_are_not_alike() -> None:
    texts = [set(sentences(Dice(seed)).split()) for seed in range(300)]
    alike = [len(a & b) / len(a | b) for n, a in enumerate(texts) for b in texts[:n]]
    assert max(alike) < 0.6


@pytest.mark.parametrize("words", [1, 5, 24, 48])
def test_texts_keep_to_their_length(words: int) -> None:
    assert all(len(sentences(Dice(seed), words).split()) <= max(words, 5) * 1.2 for seed in range(200))


def test_the_dice_are_the_same_everywhere() -> None:
    dice = Dice(42)
    assert [dice.below(1000) for _ in range(5)] == [413, 291, 858, 764, 250]
