from __future__ import annotations

import random

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distill.dataset.schema import VERDICTS_FIELD
from distill.errors import InputError
from distill.filters import FilterContext, build_chain
from distill.recipe import FilterStep, load_chain, parse

WORDS = [
    "card",
    "bank",
    "fee",
    "lost",
    "new",
    "transfer",
    "money",
    "late",
    "where",
    "is",
    "my",
    "the",
    "a",
    "today",
    "please",
]


def steps(*sections: dict[str, object]) -> tuple[FilterStep, ...]:
    return parse(tuple[FilterStep, ...], list(sections))


def rows(count: int, seed: int = 0) -> pa.Table:
    rng = random.Random(seed)
    return pa.table(
        {
            "id": [f"r{n}" for n in range(count)],
            "prompt": [" ".join(rng.choices(WORDS, k=rng.randint(1, 14))) for _ in range(count)],
            "response": [
                rng.choice(["Yes.", "I'm sorry, I can't help with that.", "{", "Here you are."]) for _ in range(count)
            ],
        }
    )


CHAIN = (
    {"kind": "truncation"},
    {"kind": "refusal"},
    {"kind": "length", "min_words": 4},
    {"kind": "exact", "fields": ["prompt"]},
    {"kind": "minhash", "fields": ["prompt"], "threshold": 0.5},
    {"kind": "minhash"},
)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 5), st.lists(st.integers(1, 60), max_size=6))
def test_fates_do_not_depend_on_batches_and_the_books_add_up(seed, sizes):
    table = rows(150, seed)
    whole_chain, chain = build_chain(steps(*CHAIN)), build_chain(steps(*CHAIN))
    whole = whole_chain.judge(table)
    fates, first = [], 0
    for size in [*sizes, 150]:
        fates += chain.judge(table.slice(first, size)).fates
        first += size
    assert fates == whole.fates
    assert chain.counts == whole_chain.counts
    dropped = sum(reasons.total() for reasons in chain.counts.values())
    assert dropped + sum(fate is None for fate in fates) == 150


def test_later_steps_see_survivors_only_and_names_are_numbered():
    chain = build_chain(steps(*CHAIN))
    verdicts = chain.judge(rows(200))
    assert chain.names == ("truncation", "refusal", "length", "exact", "minhash", "minhash_2")
    gone = np.array([name == "truncation" for name in verdicts.filter])
    assert gone.any()
    assert np.isnan(verdicts.scores[gone, 2]).all()  # length never measured them
    assert not np.isnan(verdicts.scores[verdicts.keep, 2]).any()
    assert set(chain.cpu_seconds) == set(chain.names)


def test_tables_carry_the_verdicts():
    table = rows(100)
    verdicts = build_chain(steps(*CHAIN)).judge(table)
    kept, rejected = verdicts.kept_table(table), verdicts.rejected_table(table)
    assert kept.num_rows + rejected.num_rows == 100
    assert kept.column("id").to_pylist() == [f"r{n}" for n in np.flatnonzero(verdicts.keep)]
    assert kept.schema.field("verdicts").type == VERDICTS_FIELD.type
    first = kept.column("verdicts")[0].as_py()
    assert [entry["filter"] for entry in first] == list(verdicts.names)
    assert first[0]["score"] is None
    assert first[2]["score"] >= 4
    assert rejected.column_names == [*table.column_names, "filter", "reason", "evidence", "matched_id", "score"]
    for row in rejected.to_pylist():
        fate = verdicts.fate(int(row["id"][1:]))
        assert fate is not None
        assert (fate.filter, fate.reason, fate.evidence, fate.matched_id, fate.score) == (
            row["filter"], row["reason"], row["evidence"], row["matched_id"], row["score"]
        )  # fmt: skip


def test_a_caller_may_drop_what_the_filters_kept():
    table = rows(3)
    verdicts = build_chain(()).judge(table)
    assert verdicts.keep.all()
    fate = verdicts.surplus(1, "quota", "surplus")
    assert verdicts.fate(1) == fate
    assert verdicts.rejected_table(table, [1]).column("filter").to_pylist() == ["quota"]
    assert verdicts.kept_table(table, [0, 2]).column("verdicts").to_pylist() == [[], []]


def test_two_steps_cannot_share_a_name_of_their_own():
    with pytest.raises(InputError, match="two steps have the name a"):
        build_chain(steps({"kind": "exact", "name": "a"}, {"kind": "refusal", "name": "a"}))
    assert build_chain(steps({"kind": "exact"}, {"kind": "refusal", "name": "exact"})).names == ("exact_2", "exact")


@pytest.mark.parametrize("name", ["default", "strict", "preference", "none"])
def test_shipped_chains_load_and_run(name):
    chain = build_chain(load_chain(name), FilterContext(seeds=[("s", "where is my card")]))
    turns = [[{"role": "user", "content": text}] for text in ("one question", "another thing altogether")]
    table = pa.table({"id": ["a", "b"], "messages": turns, "chosen": ["An answer.", "Words."], "rejected": ["x", "y"]})
    assert chain.judge(table).keep.all()


def test_eval_sets_of_the_context_are_for_steps_that_name_none(tmp_path):
    from distill.recipe import EvalSet

    (tmp_path / "a.jsonl").write_text('{"question": "What is the name of the first bank?"}\n')
    (tmp_path / "b.jsonl").write_text('{"question": "Who closed the last account in town?"}\n')
    context = FilterContext(folder=tmp_path, eval_sets=[EvalSet(path="a.jsonl")])
    table = pa.table({"prompt": ["what is the name of the first bank", "who closed the last account in town"]})
    assert build_chain(steps({"kind": "decontaminate"}), context).judge(table).keep.tolist() == [False, True]
    own = {"kind": "decontaminate", "against": [{"path": "b.jsonl", "name": "bee"}]}
    verdicts = build_chain(steps(own), context).judge(table)
    assert verdicts.keep.tolist() == [True, False]
    assert verdicts.matched_id[1] == "bee:1"
