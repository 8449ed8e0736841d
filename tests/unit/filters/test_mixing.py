from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

import distill
from distill.errors import InputError
from distill.filters.selection.mixing import general_rows, wanted_rows
from distill.recipe import EvalSet, load_recipe
from tests.support.workspaces import rehearsal

QUESTION = "Which river runs through the old town of Prague and under the Charles Bridge every day of the year?"


def general(folder: Path, count: int = 60) -> Path:
    path = folder / "general.jsonl"
    rows = [{"instruction": f"Tell me fact {n} about rivers.", "output": f"River fact {n}."} for n in range(count)]
    rows += [rows[3], {"instruction": QUESTION, "output": "The Vltava."}, {"instruction": "No answer", "output": None}]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def eval_set(folder: Path) -> EvalSet:
    (folder / "eval.jsonl").write_text(json.dumps({"question": QUESTION}) + "\n")
    return EvalSet(path="eval.jsonl")


def test_rows_are_freed_of_copies_and_of_eval_items_and_end_with_an_answer(tmp_path):
    mixed = general_rows(general(tmp_path), 1000, folder=tmp_path, eval_sets=[eval_set(tmp_path)])
    assert len(mixed.records) == 60
    assert mixed.rejected == {"exact": 1, "decontaminate": 1, "unusable": 1}
    assert mixed.note is not None
    assert all([turn["role"] for turn in record["messages"]] == ["user", "assistant"] for record in mixed.records)
    assert not any(QUESTION in str(record) for record in mixed.records)
    some = general_rows(tmp_path / "general.jsonl", 10, folder=tmp_path)
    assert len(some.records) == 10
    assert some.note is None
    assert some == general_rows(tmp_path / "general.jsonl", 10, folder=tmp_path)


def test_other_layouts_are_read_and_what_is_no_conversation_is_left_out(tmp_path):
    path = tmp_path / "talk.jsonl"
    talk = [{"from": "system", "value": "s"}, {"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]
    path.write_text("".join(json.dumps({"conversations": turns}) + "\n" for turns in (talk, talk[:2], talk[1:])))
    mixed = general_rows(path, 5, folder=tmp_path)
    assert [len(record["messages"]) for record in mixed.records] == [3]
    assert mixed.records[0]["messages"][-1] == {"role": "assistant", "content": "a"}
    path.write_text('{"number": 1}\n')
    with pytest.raises(InputError, match=r"talk\.jsonl"):
        general_rows(path, 5, folder=tmp_path)


def test_the_share_is_of_all_training_rows():
    assert wanted_rows(80, 0.2) == 20
    assert wanted_rows(0, 0.5) == 0


def test_a_run_mixes_them_into_its_training_split_only(tmp_path):
    general(tmp_path)
    eval_set(tmp_path)
    mix = {"path": "general.jsonl", "share": 0.25}
    file = rehearsal(tmp_path, dataset={"validation": 0.2, "mix": mix}, eval_sets=[{"path": "eval.jsonl"}])

    async def run():
        return [row async for row in distill.generate(load_recipe(file))]

    rows = asyncio.run(run())
    (dataset,) = (tmp_path / "runs").glob("*/dataset")
    train = [json.loads(line) for line in (dataset / "train.jsonl").read_text().splitlines()]
    validation = [json.loads(line) for line in (dataset / "validation.jsonl").read_text().splitlines()]
    added = [row for row in train if row["id"].startswith("mix-")]
    own = len(train) - len(added)
    assert own + len(validation) == len(rows) == 12
    assert len(added) == wanted_rows(own, 0.25)
    assert not any(row["id"].startswith("mix-") for row in validation)
    metrics = json.loads((dataset.parent / "metrics.json").read_text())
    assert metrics["mixed"]["rows"] == len(added)
    card = (dataset / "README.md").read_text()
    assert "mixed in after the same comparison with eval sets" in card
    assert f"| kept | | {len(rows)} |" in card


def test_what_proves_that_nothing_was_forgotten_is_not_mixed_in(tmp_path):
    general(tmp_path)
    item = {"messages": [{"role": "user", "content": QUESTION}], "answer": "Vltava"}
    several = {"messages": [{"role": "user", "content": "Which planet is red?"}], "answer": ["Mars", "mars"]}
    (tmp_path / "asked.jsonl").write_text(json.dumps(item) + "\n" + json.dumps(several) + "\n")
    item["messages"][0]["content"] = "Which card is lost?"
    (tmp_path / "holdout.jsonl").write_text(json.dumps(item) + "\n")
    scored = {"holdout": "holdout.jsonl", "metrics": ["exact_match"], "general": "asked.jsonl"}
    file = rehearsal(tmp_path, dataset={"mix": {"path": "general.jsonl", "share": 0.9}}, evaluate=scored)
    asyncio.run(_drain(file))
    (metrics,) = (tmp_path / "runs").glob("*/metrics.json")
    mixed = json.loads(metrics.read_text())["mixed"]
    assert mixed["rejected"] == {"exact": 1, "decontaminate": 1, "unusable": 1}


def test_a_recipe_that_cannot_mix_says_so_before_anything_is_paid(tmp_path):
    file = rehearsal(tmp_path, dataset={"mix": {"path": "absent.jsonl", "share": 0.25}})
    with pytest.raises(InputError, match="absent"):
        asyncio.run(_drain(file))
    file = rehearsal(tmp_path, dataset={"mix": {"path": "general.jsonl", "share": 1.5}})
    with pytest.raises(InputError, match="share"):
        load_recipe(file)


async def _drain(file: Path) -> None:
    async for _ in distill.generate(load_recipe(file)):
        pass
