"""GPTQ and AWQ go through a tool in another environment: what is asked of it, and what is made of its answers.

The tool itself runs in tests/heavy/test_w4a16_tool.py, where an environment is named."""

from __future__ import annotations

import asyncio
import json
import shlex
import sys
from pathlib import Path
from typing import Any

import pytest

from distill.errors import InputError
from distill.evaluate import parse_metric
from distill.evaluate.holdout import Holdout
from distill.release.w4a16 import export_w4a16, find_python
from distill.train.data import Conversation
from tests.support import fake_quant

ROWS = [
    Conversation(({"role": "user", "content": f"my card {n}"}, {"role": "assistant", "content": "lost"}), str(n))
    for n in range(3)
]


@pytest.fixture
def python(tmp_path: Path) -> Path:
    file = tmp_path / "quant" / "bin" / "python"
    file.parent.mkdir(parents=True)
    file.write_text(f'#!/bin/sh\nexec {shlex.join([sys.executable, fake_quant.__file__])} "$@"\n')
    file.chmod(0o755)
    return file


def export(student: Path, out: Path, holdout: Holdout, python: Path, **over: Any) -> dict[str, Any]:
    asked: dict[str, Any] = {"rows": ROWS, "metrics": [parse_metric("exact_match")], "max_tokens": 6, **over}
    return asyncio.run(export_w4a16("gptq", str(student), out, holdout=holdout, python=python, **asked))


def test_the_result_is_proved_and_names_no_path(student: Path, holdout: Holdout, python: Path, tmp_path: Path) -> None:
    out = tmp_path / "q 4"
    facts = export(student, out, holdout, python, latency_items=2)
    assert (facts["method"], facts["bits"], facts["calibration_rows"], facts["rows"]) == ("gptq", 4, 3, 3)
    assert (facts["greedy"], facts["passed"]) == (1, True)  # the weights were only copied
    assert [gate["gate"] for gate in facts["gates"]] == ["sure_drop <= 0.03"]
    assert {"seconds", "peak_memory_bytes", "scorecard"} <= facts.keys()
    assert json.loads((out / "export.json").read_bytes())["metrics"] == {"exact_match": 0}
    card = json.loads((out / "eval/scorecard.json").read_bytes())
    assert list(card["systems"]) == ["model", "tiny-llama-gptq"]
    assert card["systems"]["tiny-llama-gptq"]["latency"]["n"] == 2
    assert (out / "tokenizer.json").is_file()
    assert (out / "chat_template.jinja").is_file()
    for file in out.rglob("*.json*"):
        for path in (str(tmp_path), str(student.parent)):
            assert path not in file.read_text(), file
    assert sorted(path.name for path in tmp_path.iterdir()) == ["q 4", "quant"]
    with pytest.raises(InputError, match="--overwrite"):
        export(student, out, holdout, python)


def test_ruined_weights_fail_the_gate(
    student: Path, lora: Path, holdout: Holdout, python: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from distill.release.merge import merge

    asyncio.run(merge(str(student), lora, tmp_path / "m"))
    monkeypatch.setenv("FAKE_QUANT_RUINS", "1")
    facts = export(tmp_path / "m", tmp_path / "q", holdout, python, max_tokens=12, gates=["drop <= 0.5"])
    assert (facts["model_metrics"], facts["metrics"]) == ({"exact_match": 1}, {"exact_match": 0})
    assert (facts["passed"], facts["drop"]) == (False, 1)


def test_what_is_wrong_is_told_before_anything_runs(
    student: Path, holdout: Holdout, python: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DISTILL_QUANT_PYTHON", raising=False)
    with pytest.raises(InputError, match="DISTILL_QUANT_PYTHON"):
        find_python(None)
    with pytest.raises(InputError, match="no such Python"):
        find_python(tmp_path / "absent")
    monkeypatch.setenv("DISTILL_QUANT_PYTHON", str(python))
    assert find_python(None) == find_python(python.parent.parent) == python
    with pytest.raises(InputError, match=r"is no quantisation environment: .*llmcompressor"):
        export(student, tmp_path / "q", holdout, Path(sys.executable))
    with pytest.raises(InputError, match="the answer has no field 'j'"):
        export(student, tmp_path / "q", holdout, python, metrics=[parse_metric("macro_f1:field=j")])
    with pytest.raises(InputError, match="no such metric"):
        export(student, tmp_path / "q", holdout, python, gates=["kl <= 1"])
    assert [path.name for path in tmp_path.iterdir()] == ["quant"]


def test_a_relative_place_is_that_of_the_command(
    student: Path, holdout: Holdout, python: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert export(student, Path("below/q"), holdout, python)["passed"]
    assert (tmp_path / "below/q/export.json").is_file()
