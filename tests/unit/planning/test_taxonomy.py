from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import pytest

from distill.errors import InputError
from distill.planning import Taxonomy, load_seeds, load_taxonomy
from distill.planning.reference import EXAMPLE
from distill.planning.seeds import pool_for

PROBE = """\
name: probe
dimensions:
  tone: [calm, angry, terse]
topics:
  cards: {weight: 2, topics: {lost: {}, declined: {}}}
  loans: {topics: {rate: {}, early_repayment: {}}}
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "t.yaml"
    path.write_text(text, "utf-8")
    return path


def load(folder: Path, text: str) -> Taxonomy:
    return load_taxonomy(write(folder, text))


def test_the_short_form(tmp_path: Path) -> None:
    taxonomy = load(tmp_path, PROBE)
    assert {leaf.path: leaf.share for leaf in taxonomy.leaves} == {
        ("cards", "lost"): Fraction(1, 3),
        ("cards", "declined"): Fraction(1, 3),
        ("loans", "rate"): Fraction(1, 6),
        ("loans", "early_repayment"): Fraction(1, 6),
    }
    assert [value.name for value in taxonomy.dimensions[0].values] == ["calm", "angry", "terse"]


def test_the_long_form(tmp_path: Path) -> None:
    taxonomy = load(tmp_path, EXAMPLE)
    lost = taxonomy.leaves[0]
    assert lost.topic.labels == {"product": "card", "intent": "card_lost"}
    sms = taxonomy.dimensions[1].values[1]
    assert sms.allowed(("cards", "lost"))
    assert not sms.allowed(("payments", "refund"))
    assert {twist.name: twist.share for twist in taxonomy.twists} == {
        "two_intents": Fraction(2, 3),
        "no_intent": Fraction(1, 3),
    }
    assert taxonomy.share == Fraction(1, 5)
    assert [seed.text for seed in pool_for(("cards", "lost"), taxonomy.seeds())] == ["my card is gone"]
    own = pool_for(("cards", "declined"), taxonomy.seeds())
    assert own[0].data == {"answer": "42"}
    assert pool_for(("payments", "refund"), taxonomy.seeds()) == ()


def test_empty_topics_and_kinds_may_be_left_blank(tmp_path: Path) -> None:
    taxonomy = load(tmp_path, "name: t\ntopics:\n  a:\n  b:\nadversarial:\n  typos:\n")
    assert len(taxonomy.leaves) == 2
    assert taxonomy.twists[0].name == "typos"
    assert taxonomy.share == Fraction(1, 10)


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        (PROBE.replace("weight", "wieght"), 5, "topics.cards.wieght: no such field; did you mean weight?"),
        (PROBE.replace("dimensions", "dimension"), 2, "dimension: no such field; did you mean dimensions?"),
        (PROBE.replace("weight: 2", "weight: 0"), 5, "topics.cards.weight: should be greater than 0, not 0"),
        (PROBE.replace("tone", "seeds"), 3, "dimensions.seeds: has a meaning of its own in prompts"),
        (PROBE.replace("tone", "my-tone"), 3, "dimensions.my-tone: is a variable in prompts"),
        (PROBE.replace("angry", "calm"), 3, "dimensions.tone: the value 'calm' stands twice"),
        (PROBE.replace("calm", "yes"), 3, "dimensions.tone.0: should be text, not true; write it in quotes"),
        (PROBE.replace("lost", "lost/stolen"), 5, "topics.cards.topics.lost/stolen: not usable as a name"),
        (PROBE.replace("[calm, angry, terse]", "{calm: {only: [card]}}"), 3, "no such branch or leaf: card; did you"),
        (
            PROBE.replace("[calm, angry, terse]", "{calm: {only: [cards]}}"),
            3,
            "has no value for loans/rate, loans/early_repayment:",
        ),
        (
            PROBE + "adversarial: {shar: 0.1}\n",
            7,
            "weight, description, labels, seeds, pair, standalone, not 0.1; did you mean share?",
        ),
        (PROBE + "adversarial: {share: 0.1}\n", 7, "adversarial.share: names no kind"),
        (PROBE + "adversarial:\n  two: {pairs: true}\n", 8, "adversarial.two.pairs: no such field; did you mean pair?"),
        (PROBE + "adversarial:\n  cards: {standalone: true}\n", 8, "adversarial.cards: is the name of a topic too"),
        (PROBE.replace("topics:\n", "topics: []\n", 1)[:60] + "\n", 4, "topics: should be a mapping"),
    ],
)
def test_a_mistake_is_named_with_its_line(tmp_path: Path, text: str, line: int, said: str) -> None:
    with pytest.raises(InputError) as caught:
        load(tmp_path, text)
    assert str(caught.value).startswith(f"{tmp_path / 't.yaml'}:{line}: ")
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_all_mistakes_are_named_in_the_order_of_the_file(tmp_path: Path) -> None:
    text = PROBE.replace("weight: 2", "weight: heavy") + "adversarial: {share: 7, x: {weight: -1}}\nfoo: 1\n"
    with pytest.raises(InputError) as caught:
        load(tmp_path, text)
    lines = [int(line.split(":")[1]) for line in str(caught.value).splitlines()]
    assert lines == [5, 7, 7, 8]


def test_seeds_from_a_file(tmp_path: Path) -> None:
    taxonomy = load(tmp_path, PROBE)
    path = tmp_path / "seeds.jsonl"
    path.write_text(
        '{"text": "where is my card", "leaf": "cards/lost", "answer": "7"}\n'
        '{"text": "about cards", "leaf": ["cards"], "id": "mine"}\n\n{"text": "anything"}\n'
    )
    seeds = load_seeds(path, taxonomy)
    assert [(seed.id, seed.leaf, dict(seed.data)) for seed in seeds] == [
        ("seeds:1", ("cards", "lost"), {"answer": "7"}),
        ("mine", ("cards",), {}),
        ("seeds:4", None, {}),
    ]
    assert [seed.id for seed in pool_for(("cards", "lost"), seeds)] == ["seeds:1"]
    assert [seed.id for seed in pool_for(("cards", "declined"), seeds)] == ["mine"]
    assert [seed.id for seed in pool_for(("loans", "rate"), seeds)] == ["seeds:4"]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('{"leaf": "cards"}', "text: every seed needs a text"),
        ('{"text": "x", "leaf": "card"}', "leaf: no such branch or leaf: card; did you mean cards?"),
        ('{"text": "x", "leaf": 3}', "leaf: write it as branch/leaf"),
        ('{"text": "x", "id": "one"}', "id: the id 'one' stands in line 1 too"),
        ('{"text": "\\ud800"}', "not valid JSON"),
    ],
)
def test_a_mistake_in_a_seed_file_is_named_with_its_line(tmp_path: Path, line: str, said: str) -> None:
    path = tmp_path / "seeds.jsonl"
    path.write_text('{"text": "first", "id": "one"}\n' + line + "\n")
    with pytest.raises(InputError) as caught:
        load_seeds(path, load(tmp_path, PROBE))
    assert str(caught.value).startswith(f"{path}:2: ")
    assert said in str(caught.value)
