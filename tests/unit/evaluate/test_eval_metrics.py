from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import f1_score

from distill.errors import InputError
from distill.evaluate.holdout import Item
from distill.evaluate.intervals import compare, interval
from distill.evaluate.metrics import parse_metric


def items(*answers: str) -> list[Item]:
    return [Item(str(n), ({"role": "user", "content": "?"},), answer) for n, answer in enumerate(answers)]


def value(metric: str, answers: list[str], predictions: list[str]) -> float:
    return parse_metric(metric).count(items(*answers), predictions).value


@pytest.mark.parametrize(
    ("prediction", "right"),
    [
        ('{"a": 1, "b": [2]}', True),
        ('{"b":[2],"a":1}', True),
        (' {"a": 1, "b": [2]}\n', True),
        ('{"a": true, "b": [2]}', False),
        ('{"a": 1}', False),
        ('```json\n{"a": 1, "b": [2]}\n```', False),
        ("", False),
    ],
)
def test_json_answers_match_as_values(prediction: str, right: bool) -> None:
    assert value("exact_match", ['{"a": 1, "b": [2]}'], [prediction]) == right


def test_text_answers_match_as_text() -> None:
    assert value("exact_match", ["17", "17"], [" 17\n", "17.0"]) == 0.5
    assert value("exact_match:as=text", ['{"a": 1}', '{"a": 1}'], ['{"a": 1}', '{"a":1}']) == 0.5


def test_valid_json_is_strict_json() -> None:
    texts = ['{"a": 1}', '{"a": NaN}', '{"a": 1, "a": 2}', "Sure: {}", '{"a": 1} ok', "[1"]
    assert value("json_valid", [""] * 6, texts) == pytest.approx(1 / 6)


def test_a_schema_makes_json_valid_stricter(tmp_path: Path) -> None:
    (tmp_path / "s.json").write_text(json.dumps({"type": "object", "required": ["intent"]}))
    metric = parse_metric("json_valid:schema=s.json", folder=tmp_path)
    assert metric.count(items("", ""), ['{"intent": "x"}', "{}"]).right.tolist() == [1, 0]


def test_an_unreadable_prediction_is_a_miss_of_its_class() -> None:
    answers = ['{"intent": "a"}', '{"intent": "a"}', '{"intent": "b"}', '{"intent": "b"}']
    predictions = ['{"intent": "a"}', "no idea", '{"intent": "b"}', '{"intent": "c"}']
    # Both classes: precision 1, recall 1/2.
    assert value("macro_f1:field=intent", answers, predictions) == pytest.approx(2 / 3)
    assert value("accuracy:field=intent", answers, predictions) == 0.5


@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from("abcx")), min_size=1, max_size=60))
def test_macro_f1_is_scikit_learns_over_the_classes_of_the_answers(pairs: list[tuple[str, str]]) -> None:
    true, found = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    wanted = f1_score(true, found, labels=sorted(set(true)), average="macro", zero_division=0)
    assert value("macro_f1", true, found) == pytest.approx(wanted)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("macro_fi", "did you mean macro_f1"),
        ("macro_f1:feld=intent", "no option 'feld'"),
        ("macro_f1:intent", "should read NAME=VALUE"),
        ("json_valid:schema=none.json", "none.json"),
    ],
)
def test_a_wrong_metric_is_explained(text: str, says: str) -> None:
    with pytest.raises(InputError) as caught:
        parse_metric(text)
    assert says in str(caught.value)


def test_an_answer_without_the_field_is_an_error_not_a_score() -> None:
    with pytest.raises(InputError, match="item 0: the answer has no field 'intent'"):
        value("macro_f1:field=intent", ["{}"], ["{}"])


def test_a_field_that_no_answer_has_is_an_error_and_no_reading_is_never_right() -> None:
    with pytest.raises(InputError, match="item 0: the answer has no field 'inten'"):
        value("accuracy:field=inten", ['{"intent": "a"}'], ["no idea"])
    assert value("accuracy:field=intent", ['{"intent": null}'], ["no idea"]) == 0


def counted(right: list[bool]) -> tuple[object, object]:
    metric = parse_metric("exact_match")
    return metric, metric.count(items(*["y"] * len(right)), ["y" if hit else "n" for hit in right])


def test_intervals_hold_the_value_and_shrink_with_more_items() -> None:
    random = np.random.default_rng(0)
    widths = []
    for n in (50, 800):
        _, count = counted((random.random(n) < 0.7).tolist())
        found = interval(count)  # type: ignore[arg-type]
        assert found.low <= found.value <= found.high
        widths.append(found.high - found.low)
    assert widths[1] < widths[0] / 3


def test_the_bootstrap_interval_has_the_width_of_the_normal_one() -> None:
    _, count = counted([True] * 140 + [False] * 60)
    found = interval(count)  # type: ignore[arg-type]
    assert found.high - found.low == pytest.approx(2 * 1.96 * (0.7 * 0.3 / 200) ** 0.5, rel=0.1)


def test_mcnemar_counts_disagreements_only() -> None:
    metric, ours = counted([True] * 90 + [True] * 9 + [False])
    _, theirs = counted([True] * 90 + [False] * 9 + [True])
    found = compare(metric, "a", ours, "b", theirs)  # type: ignore[arg-type]
    assert found.value == pytest.approx(0.08)
    assert found.p_value == pytest.approx(2 * (1 + 10) / 2**10)
    assert found.low > 0


def test_permutation_finds_a_real_difference_and_no_difference_with_itself() -> None:
    metric = parse_metric("macro_f1")
    answers = items(*["a", "b"] * 40)
    good = metric.count(answers, ["a", "b"] * 40)
    poor = metric.count(answers, ["a", "a"] * 40)
    assert compare(metric, "good", good, "poor", poor).p_value < 0.002
    same = compare(metric, "good", good, "again", good)
    assert (same.value, same.low, same.high, same.p_value) == (0, 0, 0, 1)
