"""`distill eval` as a user writes it, in this process, on a student with two layers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.exceptions import TyperException

from distill.cli import app
from distill.errors import InputError
from tests.support.tiny_student import make_model, make_tokenizer


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    rows, items = [], []
    for number in range(6):
        question = [{"role": "user", "content": f"my card was lost {number}"}]
        answer = json.dumps({"intent": "lost" if number % 2 else "late"})
        rows.append({"messages": [*question, {"role": "assistant", "content": answer}]})
        items.append({"messages": question, "answer": answer, "leaf": f"leaf {number % 2}"})
    for name, lines in (("train", rows), ("test", items)):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (tmp_path / "fast.yaml").write_text("batch_size: 4\nmax_steps: 2\nlearning_rate: 5.0e-3\ndtype: float32\n")
    monkeypatch.setenv("DISTILL_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def command(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, Any]:
    app([*words, "--json", "--quiet"], standalone_mode=False)
    return json.loads(capsys.readouterr().out.splitlines()[-1])


EVAL = ("--holdout", "test.jsonl", "--max-tokens", "4", "--latency-items", "0")


def test_an_adapter_over_another_base_is_refused(
    folder: Path, student: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command(capsys, "train", "--data", "train.jsonl", "--model", str(student), "--recipe", "fast.yaml", "--out", "OUT")
    # Of the same shapes: nothing but the digest of its base can tell.
    other = make_tokenizer(make_model(folder / "other", initializer_range=0.5))
    found = command(capsys, "eval", "--model", str(student), "--adapter", "OUT", *EVAL, "--out", "EV")
    assert (found["subject"], found["n"]) == ("student", 6)
    with pytest.raises(InputError, match="trained on other weights than those of other") as caught:
        command(capsys, "eval", "--model", str(other), "--adapter", "OUT", *EVAL, "--out", "EV2")
    assert "pass its base, tiny-llama, as --model" in str(caught.value)


def test_a_schema_that_is_not_there_is_bad_input_whatever_is_counted(
    folder: Path, student: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ("--metric", "exact_match", "--schema", "none.json")
    with pytest.raises(InputError, match=r"none\.json: cannot be read"):
        command(capsys, "eval", "--model", str(student), *EVAL, *asked, "--out", "EV")


def test_numbers_that_make_no_sense_are_refused(
    folder: Path, student: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("--max-tokens", "--batch-size"):
        with pytest.raises(TyperException, match="greater than or equal to 1"):
            command(capsys, "eval", "--model", str(student), "--holdout", "test.jsonl", name, "0", "--out", "EV")
