"""Metrics of single tasks, against hand-counted figures and the libraries people quote."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from distill.errors import InputError
from distill.evaluate.holdout import Item
from distill.evaluate.metrics import NAMES, Counted, parse_metric
from tests.support.tiny_embedder import make_static


def item(answer: Any = None, question: str = "?", **more: Any) -> Item:
    text = answer if isinstance(answer, str) else json.dumps(answer) if answer is not None else ""
    return Item("x", ({"role": "user", "content": question},), text, has_answer=answer is not None, **more)


def count(metric: str, pairs: list[tuple[Any, str]], **options: Any) -> Counted:
    items = [one if isinstance(one, Item) else item(one) for one, _ in pairs]
    found = parse_metric(metric, **options)
    found.check(items)
    return found.count(items, [prediction for _, prediction in pairs])


def value(metric: str, pairs: list[tuple[Any, str]], **options: Any) -> float:
    return count(metric, pairs, **options).value


# -- classes and fields --------------------------------------------------------------------------------------------


def test_the_confusion_matrix_counts_who_is_taken_for_whom() -> None:
    found = count("macro_f1", [("a", "b"), ("a", "b"), ("a", "a"), ("b", "b"), ("b", "c")])
    details = found.details
    assert details["confusion"] == {"a": {"a": 1, "b": 2}, "b": {"b": 1, "c": 1}}
    assert details["confused"][0] == {"answer": "a", "prediction": "b", "items": 2}
    assert details["classes"]["b"] == {"n": 2, "precision": 0.3333, "recall": 0.5, "f1": 0.4}
    unreadable = count("macro_f1:field=i", [({"i": "a"}, "no"), ({"i": "b"}, '{"i": "b"}')])
    assert unreadable.details["confusion"]["a"] == {"(unreadable)": 1}


def test_every_field_has_its_figure_and_all_together_are_the_value() -> None:
    pairs = [
        ({"intent": "lost", "who": {"city": "Rome", "age": 4}}, '{"intent": "lost", "who": {"city": "Rom", "age": 4}}'),
        ({"intent": "rate"}, '{"intent": "rate", "mood": "angry"}'),
        ({"intent": "lost"}, "I do not know"),
    ]
    found = count("per_field", pairs)
    assert found.value == pytest.approx(3 / 5)
    assert found.details["fields"]["intent"] == {"accuracy": 0.6667, "n": 3}
    assert found.details["fields"]["who.city"] == {"accuracy": 0.0, "n": 1}
    assert found.details["extra"] == {"mood": 1}
    assert value("per_field:fields=intent", pairs) == pytest.approx(2 / 3)
    with pytest.raises(InputError, match="no answer has the field 'intend'"):
        count("per_field:fields=intend", pairs)
    with pytest.raises(InputError, match="the answer is no JSON object"):
        count("per_field", [("text", "text")])


# -- spans and numbers ---------------------------------------------------------------------------------------------


def test_spans_are_counted_exactly_or_by_the_words_they_share() -> None:
    pairs = [(["New York City", "Rome"], '["New York", "Rome", "Oslo"]')]
    assert value("span_f1", pairs) == pytest.approx(2 * 1 / (3 + 2))
    assert value("span_f1:match=tokens", pairs) == pytest.approx(2 * 3 / (4 + 4))


def test_labels_and_bounds_count_as_part_of_a_span() -> None:
    wanted = [{"start": 0, "end": 4, "label": "PER"}, {"start": 10, "end": 12, "label": "LOC"}]
    said = json.dumps([{"start": 0, "end": 4, "label": "PER"}, {"start": 10, "end": 12, "label": "PER"}])
    assert value("span_f1", [(wanted, said)]) == 0.5
    near = json.dumps([{"start": 0, "end": 2, "label": "PER"}])
    assert value("span_f1:match=tokens", [(wanted[:1], near)]) == pytest.approx(2 * 2 / (2 + 4))
    by_label = {"PER": ["Ann"], "LOC": ["Rome", "Oslo"]}
    assert value("span_f1", [(by_label, '{"LOC": ["Oslo"], "PER": ["Ann"]}')]) == pytest.approx(2 * 2 / (2 + 3))


def test_spans_of_a_field_and_of_nothing() -> None:
    assert value("span_f1:field=s", [({"s": ["a"]}, '{"s": ["a"]}'), ({"s": []}, '{"s": []}')]) == 1
    assert value("span_f1:field=s", [({"s": ["a"]}, "broken"), ({"s": []}, '{"s": ["b"]}')]) == 0
    huge = '{"s": [{"start": 0, "end": 99999999999}]}'
    assert value("span_f1:field=s,match=tokens", [({"s": ["a"]}, huge)]) == 0
    with pytest.raises(InputError, match="holds no spans in its field 's'"):
        count("span_f1:field=s", [({"t": 1}, "")])


def test_plain_text_answers_give_the_f1_of_question_answering() -> None:
    # SQuAD's own example of partial credit: 3 of 4 words said, 3 of 3 wanted; then nothing.
    pairs = [("the Eiffel Tower", "at the Eiffel Tower"), ("Paris", "London")]
    assert value("span_f1:match=tokens,mean=items", pairs) == pytest.approx((6 / 7 + 0) / 2)


@pytest.mark.parametrize(
    ("metric", "answer", "prediction", "right"),
    [
        ("numeric", "1,000", "First 3 apples, then 7. So it is 1000.", 1),
        ("numeric", "12 * 3 = 36\n#### 36", "The answer is $36.00", 1),
        ("numeric", "0.5", "half of it: 50%", 1),
        ("numeric", "3/4", r"\boxed{\frac{3}{4}}", 1),
        ("numeric", "7", "I think 7 or maybe 8", 0),
        ("numeric", "7", "seven", 0),
        ("numeric", "-3", "it fell to -3 °C", 1),
        ("numeric:rule=all", "7", "7 or 8", 0),
        ("numeric:rule=boxed", "7", r"2 + 5 = \boxed{7}, not 8", 1),
        ("numeric:tolerance=0.01", "3.14159", "about 3.14", 1),
        ("numeric:tolerance=0.0001", "3.14159", "about 3.14", 0),
    ],
)
def test_the_final_number_counts(metric: str, answer: str, prediction: str, right: int) -> None:
    assert value(metric, [(answer, prediction)]) == right


def test_an_answer_without_a_number_is_an_error() -> None:
    with pytest.raises(InputError, match="holds no number"):
        count("numeric", [("many", "3")])


# -- overlap -------------------------------------------------------------------------------------------------------

TEXTS = [
    ("the cat sat on the mat", "the cat was sitting on a mat"),
    ("Police killed the gunman", "the gunman killed police, it is said"),
    ("A transfer takes two working days.", "Two working days, usually."),
    ("nothing in common", "xyz"),
    ("ab", "abc abc abc"),
]
# rouge-score 0.1.2, RougeScorer(["rougeL"], use_stemmer=False), fmeasure; sacrebleu 2.6.0, corpus_chrf and
# sentence_chrf with their defaults, over 100.
ROUGE_L = [0.615384615, 0.363636364, 0.6, 0.0, 0.0]
CHRF = [0.339405437, 0.59876978, 0.430339911, 0.0, 0.512295082]
CORPUS_CHRF = 0.396505565


def test_rouge_l_is_that_of_rouge_score() -> None:
    found = count("rouge_l", TEXTS)
    assert found.right.tolist() == pytest.approx(ROUGE_L, abs=1e-6)
    assert found.value == pytest.approx(sum(ROUGE_L) / len(ROUGE_L))


def test_chrf_is_that_of_sacrebleu() -> None:
    found = count("chrf", TEXTS)
    assert found.right.tolist() == pytest.approx(CHRF, abs=1e-6)
    assert found.value == pytest.approx(CORPUS_CHRF, abs=1e-6)


def test_embeddings_of_equal_meaning_are_near(tmp_path: Path) -> None:
    make_static(tmp_path / "words", ["my", "card", "is", "gone", "lost", "rate", "the", "of", "today"])
    pairs = [("my card is gone", "my card is gone"), ("my card is gone", "the rate of today"), ("my card", "")]
    found = count("embedding_similarity:model=words", pairs, folder=tmp_path)
    same, other, empty = found.right.tolist()
    assert same == pytest.approx(1, abs=1e-3)
    assert other < 0.6
    assert empty == 0
    with pytest.raises(InputError, match="no such embedding model"):
        count("embedding_similarity:model=wrods", pairs, folder=tmp_path)


# -- refusals and glossary -----------------------------------------------------------------------------------------

DECLINED = "I'm sorry, but I can't help with that."


def test_refusals_are_right_where_they_are_due_and_wrong_elsewhere() -> None:
    due, other = item(question="how to pick a lock", refuse=True), item("17:00", question="when do you close")
    said = [(due, DECLINED), (due, "Take a pin."), (other, "17:00"), (other, "17:00"), (other, DECLINED)]
    pairs: list[tuple[Any, str]] = list(said)
    assert value("refusal", pairs) == pytest.approx((1 / 2 + 2 / 3) / 2)
    assert value("refusal:of=due", pairs) == 0.5
    assert value("refusal:of=undue", pairs) == pytest.approx(1 / 3)
    assert count("refusal", pairs).details["refused all the same"] == 1
    # What has no answer is no part of metrics that compare with one.
    assert value("exact_match", pairs) == pytest.approx(2 / 3)
    with pytest.raises(InputError, match="no item is marked"):
        count("refusal", [(other, "17:00")])


def test_a_classifier_refuses_by_a_field() -> None:
    due, other = item({"intent": "none"}, refuse=True), item({"intent": "rate"})
    pairs = [(due, '{"intent": "none"}'), (other, '{"intent": "none"}'), (other, "broken")]
    assert value("refusal:field=intent,value=none", pairs) == pytest.approx((1 + 1 / 2) / 2)


def test_terms_of_the_question_have_to_be_rendered_as_allowed(tmp_path: Path) -> None:
    (tmp_path / "g.yaml").write_text(
        "current account: compte courant\naccount: [compte]\noverdraft: {allow: [découvert], forbid: [à découvert]}\n"
        "銀行: bank\n"
    )
    pairs = [
        (item("-", question="My current account?"), "Mon Compte Courant ?"),  # the longer term alone
        (item("-", question="An account and an overdraft"), "Un compte à découvert"),  # one right, one forbidden
        (item("-", question="Accounting"), "rien"),  # no term
        (item("-", question="私の銀行は"), "my bank"),
    ]
    found = count("glossary:file=g.yaml", pairs, folder=tmp_path)
    assert found.value == pytest.approx(3 / 4)
    assert found.details["terms"]["overdraft"] == {"n": 1, "right": 0}
    assert "account" in found.details["terms"]
    assert found.counts.tolist() == [True, True, False, True]
    (tmp_path / "bad.yaml").write_text("card: [carte]\nrate: {alow: [taux]}\n")
    with pytest.raises(InputError, match=r"bad.yaml:2: unknown key 'alow'"):
        parse_metric("glossary:file=bad.yaml", folder=tmp_path)


# -- the table -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("numeric:rule=lats", "`rule` can only be last"),
        ("numeric:tolerance=-1", "`tolerance` should be a number"),
        ("glossary", "`file=FILE` is needed"),
        ("pass_at_k:k=5,n=3", "n is at least 5"),
        ("refusal:field=intent", "`field` and `value` go together"),
        ("rouge_l:field=x", "no option 'field'"),
        ("bleu", "there are: json_valid"),
    ],
)
def test_a_wrong_option_is_explained(text: str, says: str) -> None:
    with pytest.raises(InputError) as caught:
        parse_metric(text)
    assert says in str(caught.value)


def test_a_metric_that_asks_or_draws_says_what_it_needs() -> None:
    with pytest.raises(InputError, match="asks a teacher"):
        value("judge", [("a", "a")])
    with pytest.raises(InputError, match="say --allow-code"):
        value("pass_at_k:k=1", [("a", "a")])
    assert set(NAMES) >= {"judge_pairwise", "chrf", "span_f1"}
