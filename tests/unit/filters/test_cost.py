from __future__ import annotations

import json

import pytest

from distill.assets import shipped
from distill.filters import FilterContext, build_chain, filter_file
from distill.filters.cost import COST, cost_notes
from distill.recipe import FilterStep, load_chain, parse
from distill.recipe.filters import step_kinds

CHAINS = sorted(path.stem for path in shipped("filters").glob("*.yaml"))


def test_every_kind_has_a_cost():
    assert set(step_kinds()) <= set(COST)


def test_a_dear_step_before_a_cheap_one_is_noted(tmp_path):
    steps = parse(tuple[FilterStep, ...], [{"kind": "code"}, {"kind": "length", "min_words": 1}, {"kind": "refusal"}])
    assert cost_notes(steps) == [
        "code (about 130 µs a row) stands before length (9): the chain is cheaper the other way round",
        "code (about 130 µs a row) stands before refusal (20): the chain is cheaper the other way round",
    ]
    (tmp_path / "in.jsonl").write_text('{"response": "x"}\n')
    assert filter_file(tmp_path / "in.jsonl", steps, tmp_path / "out").notes == cost_notes(steps)


def test_a_step_that_drops_nothing_makes_no_chain_cheaper():
    chain = [{"kind": "code"}, {"kind": "pii", "action": "mask"}]
    dear = {"kind": "language", "languages": ["en"]}
    assert cost_notes(parse(tuple[FilterStep, ...], chain)) == []
    assert cost_notes(parse(tuple[FilterStep, ...], [dear, {"kind": "length", "min_chars": 1}])) != []
    semantic = {"kind": "semantic"}
    assert cost_notes(parse(tuple[FilterStep, ...], [semantic, {"kind": "pii"}])) == []
    assert len(cost_notes(parse(tuple[FilterStep, ...], [semantic, {"kind": "pii", "action": "drop"}]))) == 1


@pytest.mark.parametrize("name", CHAINS)
def test_shipped_chains_are_in_order_of_cost_and_run(name, tmp_path):
    steps = load_chain(name)
    assert cost_notes(steps) == []
    assert build_chain(steps, FilterContext(folder=shipped("filters").parent)).names is not None
    rows = [
        {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]}
        for question, answer in (
            (
                "How do I reverse a list in Python, in place and without a copy?",
                "Call `items.reverse()`; it returns None.",
            ),
            ("Why was my card declined at the shop this morning?", "The limit of the day was reached at nine."),
            ("Why was my card declined at the shop this morning?", "I'm sorry, but I can't help with that."),
        )
    ]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    if name in ("support", "preference"):
        return  # made for rows of other columns
    report = filter_file(tmp_path / "in.jsonl", steps, tmp_path / "out")
    assert report.kept == (3 if name in ("none", "private") else 2)
