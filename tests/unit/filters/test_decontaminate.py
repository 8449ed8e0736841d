from __future__ import annotations

import json

import pyarrow as pa
import pytest

from distill.errors import InputError
from distill.filters.decontamination.decontaminate import DecontaminateFilter
from distill.filters.decontamination.evalsets import EvalItem, load_items
from distill.recipe import DecontaminateStep, EvalSet

LONG = (
    "Janet’s ducks lay 16 eggs per day. She eats three for breakfast every morning and bakes muffins for her friends "
    "every day with four. She sells the remainder at the farmers' market daily for $2 per fresh duck egg."
)
ITEMS = [
    EvalItem("gsm8k", "1", LONG),
    EvalItem("bank", "7", "My card has not arrived after two long weeks"),
    EvalItem("bank", "8", "I lost my new card"),
    EvalItem("bank", "9", "Lost it"),
    EvalItem("facts", "3", "Who wrote Hamlet?"),
    EvalItem("facts", "4", "ما هي عاصمة مصر؟"),
]


def judge(*prompts: str, **step):
    filter_ = DecontaminateFilter(DecontaminateStep(kind="decontaminate", **step), items=ITEMS)
    return filter_.judge(pa.table({"prompt": list(prompts)}))


@pytest.mark.parametrize(
    ("text", "stage", "item"),
    [
        (LONG.upper().replace("’", "'"), "exact", "gsm8k:1"),
        ("lost it!", "exact", "bank:9"),
        ("Please answer briefly: Who wrote Hamlet? Thanks in advance.", "contained", "facts:3"),
        ('Say "who wrote hamlet" three times', "contained", "facts:3"),
        ("Look:\nWho wrote Hamlet\nIt is easy", "contained", "facts:3"),
        ("سؤال: ما هي عاصمة مصر؟ شكرا", "contained", "facts:4"),
        (f"Solve this: {LONG} Think step by step, and write the number alone in the last line.", "ngram", "gsm8k:1"),
        (" ".join(LONG.split()[6:24]), "ngram", "gsm8k:1"),  # a row inside an item
        ("Hello! I lost my new card. It was red and I was in Rome.", "contained", "bank:8"),
        ("for breakfast every morning and bakes", "contained", "gsm8k:1"),
        ("My card has not arrived after two long months", "ngram", "bank:7"),
        (
            LONG.replace("16", "20").replace("three", "five").replace("$2", "$4").replace("four", "six"),
            "number_changed",
            "gsm8k:1",
        ),
        (" ".join("new" if n % 7 == 6 else word for n, word in enumerate(LONG.split())), "similar", "gsm8k:1"),
    ],
)
def test_leaks_are_found_with_their_stage_and_item(text, stage, item):
    verdicts = judge(text)
    assert (verdicts.reason[0], verdicts.matched_id[0]) == (stage, item)
    assert 0 < verdicts.score[0] <= 1
    assert verdicts.evidence[0].startswith("prompt: “")
    assert item.split(":")[0] in verdicts.evidence[0]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "I lost it all in one night at the races",  # holds a two-word item
        "Why was I charged a fee for my withdrawal?",
        "They say who wrote Hamlet is still open, and who did not.",
        "She sells sea shells by the shore every day with her friends, and eats eggs for breakfast.",
    ],
)
def test_clean_rows_are_kept(text):
    assert judge(text).keep[0]


def test_one_other_word_makes_another_short_question():
    questions = (
        "Who wrote Hamlet?", "Where is Mount Fuji?", "What causes ocean tides?", "How tall is Everest?",
        "Who invented the telephone?", "What is a quasar?", "When did the war end?", "Who painted Guernica?",
        "Which gas do plants absorb?", "What does DNA stand for?", "Capital of Burkina Faso?", "Why is the sky blue?",
    )  # fmt: skip
    items = [EvalItem("facts", str(number), text) for number, text in enumerate(questions)]
    filter_ = DecontaminateFilter(DecontaminateStep(kind="decontaminate"), items=items)
    others = [
        "Where is Mount Etna?", "What causes ocean currents?", "How tall is Kilimanjaro?", "Who invented the radio?",
    ]  # fmt: skip
    assert filter_.judge(pa.table({"prompt": others})).reason == [""] * len(others)
    same = [f"Please tell me: {text}" for text in questions]
    assert not filter_.judge(pa.table({"prompt": same})).keep.any()


def test_an_item_in_the_answer_counts_too():
    rows = pa.table({"prompt": ["Tell me a problem."], "response": [LONG]})
    verdicts = DecontaminateFilter(DecontaminateStep(kind="decontaminate"), items=ITEMS).judge(rows)
    assert verdicts.reason == ["exact"]
    assert verdicts.evidence[0].startswith("response: ")


def test_batches_do_not_matter_and_no_items_mean_no_verdicts():
    prompts = [LONG, "clean", "I lost my new card", LONG[:150]]
    whole = judge(*prompts)
    single = [judge(prompt) for prompt in prompts]
    assert whole.reason == [verdicts.reason[0] for verdicts in single]
    assert DecontaminateFilter(DecontaminateStep(kind="decontaminate")).judge(pa.table({"prompt": prompts})).keep.all()


def test_eval_sets_of_every_format(tmp_path):
    (tmp_path / "a.jsonl").write_text(
        json.dumps({"messages": [{"role": "user", "content": "one"}], "answer": "x"}) + "\n"
    )
    (tmp_path / "b.csv").write_text('q,gold\n"two, or\nthree",x\nfour,y\n')
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"task_id": ["T/1"], "text": ["five"]}), tmp_path / "c.parquet")
    sets = [EvalSet(path="a.jsonl"), EvalSet(path="b.csv", field="q", name="bee"), EvalSet(path="c.parquet")]
    found = [(item.name, item.text) for item in load_items(sets, tmp_path)]
    assert found == [("a:1", "one"), ("bee:2", "two, or\nthree"), ("bee:4", "four"), ("c:T/1", "five")]


def test_a_wrong_field_names_file_and_columns(tmp_path):
    (tmp_path / "a.csv").write_text("q\nx\n")
    with pytest.raises(InputError, match=r"a\.csv: .*no column z"):
        load_items([EvalSet(path="a.csv", field="z")], tmp_path)
    with pytest.raises(InputError, match="`field`"):
        load_items([EvalSet(path="a.csv")], tmp_path)
