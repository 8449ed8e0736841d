"""Decontamination of whole files: where eval sets come from, what is calibrated, what is written and shown."""

from __future__ import annotations

import json
import random

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import typer
from typer.testing import CliRunner

from distill.cli.filter import filter_
from distill.errors import InputError
from distill.filters.decontamination.evalsets import load_items
from distill.filters.files import filter_file
from distill.filters.sampling import sample
from distill.recipe import DecontaminateStep, EvalSet
from tests.unit.filters.test_decontaminate_paraphrase import CLEAN, ITEMS, planted

app = typer.Typer()
app.command()(filter_)

# As it stands in the documentation, word for word.
CHAIN = (
    "- {kind: decontaminate, fields: [prompt], against: [{path: eval.jsonl, field: question, name: gsm8k}], "
    "false_positive_rate: 0.01, embeddings: none}\n"
)


@pytest.fixture
def folder(tmp_path):
    lines = [{"question": item.text, "answer": "7"} for item in ITEMS]
    (tmp_path / "eval.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    prompts = [*CLEAN[:900], *planted("edited_10", 40), ITEMS[99].text]
    random.Random(3).shuffle(prompts)
    rows = [{"prompt": prompt, "response": "#### 7", "n": number} for number, prompt in enumerate(prompts)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "chain.yaml").write_text(CHAIN)
    return tmp_path


def run(folder, *more: str, rows: str = "rows.jsonl"):
    arguments = [str(folder / rows), "--chain", str(folder / "chain.yaml"), "--out", str(folder / "out"), *more]
    return CliRunner().invoke(app, arguments, catch_exceptions=False)


def test_the_chain_works_as_written(folder):
    result = run(folder, "--json")
    report = json.loads(result.stdout)
    assert report["in"] == 941 == report["kept"] + report["rejected_total"]
    assert sum(report["rejected"]["decontaminate"].values()) >= 41
    (facts,) = report["calibrated"]["decontaminate"]["sets"]
    assert facts["set"] == "gsm8k"
    assert 0.2 < facts["threshold"] < 1.4
    found = json.loads((folder / "out" / "decontamination.json").read_text())["decontaminate"]["gsm8k"]
    assert found["items"] == len(ITEMS)
    assert {"100", "1", "40"} <= {item["id"] for item in found["suspect_items"]}
    assert all({"row_text", "item_text", "score", "reason", "item"} <= set(example) for example in found["examples"])
    assert "suspect" in result.stderr
    rejected = pq.read_table(folder / "out" / "rejected.parquet").to_pylist()
    copy = next(row for row in rejected if row["prompt"] == ITEMS[99].text)
    assert (copy["reason"], copy["matched_id"], copy["score"]) == ("exact", "gsm8k:100", 1.0)


def test_the_self_test_says_what_is_found(folder):
    result = run(folder, "--self-test", "--json")
    tested = json.loads(result.stdout)["self_test"]["decontaminate"]
    recall = tested["recall"]["gsm8k"]
    assert set(recall) >= {"exact", "edited_5", "edited_20", "number_changed", "shuffled", "reworded", "inside_row"}
    assert all(kind["found"] <= kind["planted"] for kind in recall.values())
    assert recall["exact"]["recall"] == 1.0
    assert recall["edited_10"]["recall"] >= 0.97
    assert tested["false_positives"]["rate"] <= 0.03
    assert "edited_20" in result.stderr
    # What was tried leaves no trace in the result.
    again = run(folder, "--json")
    assert json.loads(again.stdout)["rejected"] == json.loads(result.stdout)["rejected"]


def test_a_self_test_needs_an_eval_set(folder):
    (folder / "chain.yaml").write_text("- kind: exact\n")
    with pytest.raises(InputError, match="nothing to test"):
        run(folder, "--self-test")


def test_the_calibration_pass_counts_nothing(folder):
    lines = [f'"{prompt}",{number}' for number, prompt in enumerate(CLEAN[:300])]
    (folder / "rows.csv").write_text("prompt,n\n" + "\n".join([*lines[:100], "only one value", *lines[100:]]) + "\n")
    report = json.loads(run(folder, "--json", "--on-error", "skip", rows="rows.csv").stdout)
    assert (report["in"], report["invalid"]) == (301, 1)
    assert report["calibrated"]["decontaminate"]["rows"] == 300


def test_masked_text_stays_masked_in_the_report(folder):
    (folder / "chain.yaml").write_text(CHAIN + "- {kind: pii, action: mask}\n")
    leak = f"Mail to jane.roe@example.com. {ITEMS[0].text}"
    with (folder / "rows.jsonl").open("a") as file:
        file.write(json.dumps({"prompt": leak, "response": "x", "n": 0}) + "\n")
    run(folder)
    assert "jane.roe@example.com" not in (folder / "out" / "decontamination.json").read_text()


def test_a_sample_does_not_depend_on_batches():
    from distill.filters.reading import Batch

    table = pa.table({"n": list(range(5000))})

    def batches(size: int):
        for first in range(0, 5000, size):
            part = table.slice(first, size)
            yield Batch(part, list(range(first + 1, first + 1 + part.num_rows)))

    one, other = (sample(batches(size), table.schema, 100).column("n").to_pylist() for size in (64, 1000))
    assert one == other == sorted(one)
    assert len(one) == 100
    assert 1500 < sum(one) / 100 < 3500
    assert sample(batches(64), table.schema, 9000).num_rows == 5000


TASK = """\
task: riddles
include: base.yaml
dataset_kwargs: {data_files: {test: riddles.jsonl, train: other.jsonl}}
doc_to_text: "Q: {{ question }}\\nA:"
process_results: !function utils.process
"""


def test_the_data_of_an_lm_eval_task(tmp_path):
    (tmp_path / "base.yaml").write_text("dataset_path: json\ntest_split: test\ndoc_to_text: text\n")
    (tmp_path / "riddles.yaml").write_text(TASK)
    (tmp_path / "riddles.jsonl").write_text('{"question": "What walks on four legs?", "text": "no"}\n')
    (tmp_path / "other.jsonl").write_text('{"question": "What flies?"}\n')
    found = [(item.name, item.text) for item in load_items([EvalSet(path="riddles.yaml")], tmp_path)]
    assert found == [("riddles:1", "What walks on four legs?")]
    other = EvalSet(path="riddles.yaml", split="train", name="r")
    assert [item.name for item in load_items([other], tmp_path)] == ["r:1"]
    with pytest.raises(InputError, match="no data_files for the split dev"):
        load_items([EvalSet(path="riddles.yaml", split="dev")], tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [("- a list", "not an lm-eval task"), ("task: x", "no dataset_path"), ("a: [", "not valid YAML")],
)
def test_a_wrong_task_is_named(tmp_path, text, message):
    (tmp_path / "task.yaml").write_text(text)
    with pytest.raises(InputError, match=rf"task\.yaml: .*{message}"):
        load_items([EvalSet(path="task.yaml", field="q")], tmp_path)


def test_columns_of_an_eval_set_that_nobody_asks_for_may_be_mixed(tmp_path):
    rows = [{"question": "one", "answer": "1"}, {"question": "two", "answer": ["2", "two"]}, {"question": 3}]
    (tmp_path / "eval.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    items = load_items([EvalSet(path="eval.jsonl", field="question")], tmp_path)
    assert [item.text for item in items] == ["one", "two", "3"]


def test_a_dataset_through_the_hub_library(tmp_path, monkeypatch):
    """A folder is loaded by the same call as a dataset of the hub."""
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "test.jsonl").write_text('{"question": "one"}\n{"question": "two"}\n')
    sets = [EvalSet(path=f"hub:{tmp_path / 'set'}", field="question", name="h")]
    assert [item.name for item in load_items(sets, tmp_path)] == ["h:1", "h:2"]
    with pytest.raises(InputError, match="cannot be loaded"):
        load_items([EvalSet(path=f"hub:{tmp_path / 'none'}", field="question")], tmp_path)


def test_clean_rows_come_from_a_file(folder):
    (folder / "clean.csv").write_text("prompt\n" + "\n".join(f'"{prompt}"' for prompt in CLEAN[:400]) + "\n")
    step = DecontaminateStep(
        kind="decontaminate",
        fields=("prompt",),
        against=(EvalSet(path="eval.jsonl", field="question"),),
        false_positive_rate=0.05,
        clean="clean.csv",
    )
    report = filter_file(folder / "rows.jsonl", [step], folder / "out")
    assert report.calibrated["decontaminate"]["from"] == "clean"
    assert report.calibrated["decontaminate"]["rows"] == 400
