"""The task for lm-evaluation-harness holds the prompt of training, and nothing that has to be fetched."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from distill.errors import InputError
from distill.evaluate import Item, Student
from distill.evaluate.lm_harness import write_task
from distill.train.student import load_tokenizer
from distill.train.template import Encoder
from tests.support.terminal import distill

ITEMS = [
    Item("a", ({"role": "system", "content": "Be {{ brief }}."}, {"role": "user", "content": "one\ntwo"}), " yes "),
    Item("b", ({"role": "user", "content": "three"},), '{"a": "{{ x }}"}'),
]


def test_the_task_holds_the_rendered_prompt(student: Path, tmp_path: Path) -> None:
    system = Student(str(student), None, max_tokens=6, dtype="float32")
    task = write_task(system, ITEMS, tmp_path / "task", name="mine")
    rows = [json.loads(line) for line in (tmp_path / "task/mine.jsonl").read_text().splitlines()]
    encoder = Encoder(load_tokenizer(student))
    for row, item in zip(rows, ITEMS, strict=True):
        ids = encoder.tokenizer(row["prompt"], add_special_tokens=False)["input_ids"]
        assert ids == encoder.prompt(item.messages)
        assert row["target"] == item.answer.strip()
    config = yaml.safe_load((tmp_path / "task/mine.yaml").read_text())
    plain = {"do_sample": False, "repetition_penalty": 1.0}
    assert config["generation_kwargs"] == {"until": ["<|im_end|>"], "max_gen_toks": 6, **plain}
    assert Path(config["dataset_kwargs"]["data_files"]["test"]).is_absolute()
    # Names of columns, not templates: text with braces stays as it is.
    assert (config["doc_to_text"], config["doc_to_target"]) == ("prompt", "target")
    assert f"pretrained={student}" in " ".join(task.command)
    with pytest.raises(InputError, match="task's name"):
        write_task(system, ITEMS, tmp_path / "task", name="a b")


def test_the_command_writes_it(student: Path, tmp_path: Path) -> None:
    rows = [{"id": i.id, "messages": list(i.messages), "answer": i.answer} for i in ITEMS]
    (tmp_path / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    done = distill(
        "export", "lm-eval", "--model", student, "--holdout", "test.jsonl", "--out", "task", "--json", cwd=tmp_path
    )
    assert done.json["command"][:2] == ["lm_eval", "run"]
    assert (tmp_path / "task/holdout.yaml").is_file()
