"""The merged model is the student that was trained, and the file says how near it is."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from distill.cli import app
from distill.errors import InputError
from distill.evaluate import Student, parse_metric
from distill.evaluate.holdout import Holdout
from distill.release.merge import DEQUANTISED, FULL, merge

EXACT = [parse_metric("exact_match")]


def merged(*arguments: Any, **options: Any) -> Any:
    return asyncio.run(merge(*arguments, **options))


def texts(holdout: Holdout, model: Path, adapter: Path | None = None) -> list[str]:
    student = Student(str(model), adapter, max_tokens=12, latency_items=0)
    return [prediction.text for prediction in student.generate(holdout.items).predictions]


def test_a_merged_adapter_answers_as_the_adapter_did(
    student: Path, lora: Path, holdout: Holdout, tmp_path: Path
) -> None:
    result = merged(str(student), lora, tmp_path / "m", holdout=holdout, metrics=EXACT, max_tokens=12)
    facts = json.loads((tmp_path / "m/merge.json").read_bytes())
    assert result.passed
    assert list(facts["candidates"]) == [FULL]
    assert facts["candidates"][FULL]["parity"]["kl"] < 1e-4
    assert facts["candidates"][FULL]["parity"]["top1"] == 1
    answers = texts(holdout, student, lora)
    assert answers == [item.answer for item in holdout.items]
    assert texts(holdout, tmp_path / "m") == answers
    assert (tmp_path / "m/chat_template.jinja").read_text() == (lora / "adapter/chat_template.jinja").read_text()
    assert (tmp_path / "m/eval/scorecard.json").is_file()


def test_the_base_need_not_be_named_where_the_adapter_was_trained_here(
    lora: Path, holdout: Holdout, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "test.jsonl"
    items = ({"messages": list(item.messages), "answer": item.answer} for item in holdout.items)
    file.write_text("".join(json.dumps(item) + "\n" for item in items))
    common = ["--adapter", str(lora), "--metric", "exact_match", "--max-tokens", "12", "--json", "--quiet"]
    app(["merge", *common, "--out", str(tmp_path / "m")], standalone_mode=False)
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["chosen"] == FULL
    app(["eval", *common, "--holdout", str(file), "--out", str(tmp_path / "e")], standalone_mode=False)
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert found["systems"]["student"]["metrics"]["exact_match"]["value"] == 1.0
    with pytest.raises(InputError, match="not an adapter"):
        app(["merge", "--adapter", str(tmp_path), "--out", str(tmp_path / "n")], standalone_mode=False)


def test_an_adapter_of_a_quantised_base_fits_the_dequantised_one_better(
    student: Path, qlora: Path, holdout: Holdout, tmp_path: Path
) -> None:
    merged(str(student), qlora, tmp_path / "m", holdout=holdout, metrics=EXACT, max_tokens=12)
    facts = json.loads((tmp_path / "m/merge.json").read_bytes())
    kl = {name: found["parity"]["kl"] for name, found in facts["candidates"].items()}
    assert set(kl) == {FULL, DEQUANTISED}
    assert 10 * kl[DEQUANTISED] < kl[FULL]
    best = max(found["metrics"]["exact_match"] for found in facts["candidates"].values())
    assert facts["candidates"][facts["chosen"]]["metrics"]["exact_match"] == best
    assert facts["adapter_metrics"] == {"exact_match": 1.0}


def test_without_a_holdout_the_nearer_one_is_kept(student: Path, qlora: Path, tmp_path: Path) -> None:
    result = merged(str(student), qlora, tmp_path / "m")
    assert result.facts["chosen"] == DEQUANTISED
    assert "no holdout" in result.facts["reason"]
    assert {gate["gate"] for gate in result.facts["gates"]} == {"kl <= 0.05", "top1 >= 0.95"}


def test_a_gate_that_fails_is_told(student: Path, lora: Path, tmp_path: Path) -> None:
    result = merged(str(student), lora, tmp_path / "m", gates=["kl < -1"])
    assert not result.passed
    assert not json.loads((tmp_path / "m/merge.json").read_bytes())["passed"]


def test_no_path_of_this_machine_is_saved(student: Path, lora: Path, tmp_path: Path) -> None:
    merged(str(student), lora, tmp_path / "m")
    for file in (tmp_path / "m").rglob("*"):
        if file.suffix in (".json", ".jsonl", ".jinja", ".md"):
            for path in (str(tmp_path), str(student.parent), str(lora)):
                assert path not in file.read_text(), file


def test_what_is_there_is_not_overwritten(student: Path, lora: Path, tmp_path: Path) -> None:
    target = tmp_path / "m"
    target.mkdir()
    (target / "mine.txt").write_text("x")
    with pytest.raises(InputError, match="not a merged model"):
        merged(str(student), lora, target)
    (target / "mine.txt").unlink()
    merged(str(student), lora, target)
    with pytest.raises(InputError, match="--overwrite"):
        merged(str(student), lora, target)
    merged(str(student), lora, target, overwrite=True)
    assert [path.name for path in tmp_path.iterdir()] == ["m"]  # and nothing half done beside it


def test_bad_input_is_told_before_anything_is_built(
    student: Path, lora: Path, holdout: Holdout, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="not an adapter"):
        merged(str(student), student, tmp_path / "m")
    with pytest.raises(InputError, match="no such metric"):
        merged(str(student), lora, tmp_path / "m", gates=["exact_match >= 1"])
    said: list[str] = []
    options = {"holdout": holdout, "metrics": [parse_metric("macro_f1:field=j")], "progress": said.append}
    with pytest.raises(InputError, match="item lost: the answer has no field 'j'"):
        merged(str(student), lora, tmp_path / "m", **options)
    assert said == []
    assert not list(tmp_path.iterdir())
