"""A release holds its weights, its proof, its card and the files that start other engines."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from distill.errors import InputError
from distill.evaluate import Student, evaluate, parse_metric
from distill.evaluate.holdout import Holdout
from distill.release.export import write_gguf
from distill.release.make import add_release
from distill.release.registry import Registry


@pytest.fixture(scope="module")
def scorecard(student: Path, lora: Path, holdout: Holdout, tmp_path_factory: pytest.TempPathFactory) -> Path:
    import asyncio

    out = tmp_path_factory.mktemp("eval")
    systems = [
        Student(str(student), None, "base", max_tokens=12, latency_items=0),
        Student(str(student), lora, max_tokens=12, latency_items=0),
    ]
    asyncio.run(evaluate(systems, holdout, [parse_metric("exact_match")], out, gates=["exact_match >= 0.9"]))
    return out


def test_a_proven_release(student: Path, lora: Path, scorecard: Path, tmp_path: Path) -> None:
    registry = Registry(tmp_path / "releases")
    listed = add_release(registry, "cards", lora, base=str(student), scorecard=scorecard, note="one <b> *two*")
    release = listed.release
    assert release.unproven is None
    assert release.score is not None
    assert release.score.metrics["exact_match"]["value"] == 1
    assert release.score.others["base"]["exact_match"]["value"] == 0
    assert release.training is not None
    assert release.training["rows"] == 16
    registry.verify(registry.find("cards"))
    card = (listed.folder / "README.md").read_text()
    assert "UNPROVEN" not in card
    assert "| **this release** | 1.000 [1.000, 1.000] |" in card
    assert "one &lt;b\\> \\*two\\*" in card
    assert "distill train --data train.jsonl --model tiny-llama" in card
    vllm = (listed.folder / "serve/vllm.sh").read_text()
    assert "--lora-modules cards=./adapter" in vllm
    assert "--chat-template ./adapter/chat_template.jinja" in vllm
    assert """--override-generation-config '{"temperature": 0, "repetition_penalty": 1}'""" in vllm
    for file in listed.folder.rglob("*"):
        if file.is_file() and file.suffix != ".safetensors":
            for path in (str(tmp_path), str(lora), str(student.parent), str(scorecard)):
                assert path not in file.read_text(), file


def test_without_a_passing_scorecard_only_by_force_and_marked(
    student: Path, lora: Path, scorecard: Path, tmp_path: Path
) -> None:
    registry = Registry(tmp_path / "releases")
    with pytest.raises(InputError, match="no scorecard of these weights"):
        add_release(registry, "cards", lora, base=str(student))
    with pytest.raises(InputError, match="a gate of its scorecard fails: exact_match > 1"):
        add_release(registry, "cards", lora, base=str(student), scorecard=scorecard, gates=["exact_match > 1"])
    assert registry.list() == []
    listed = add_release(registry, "cards", lora, base=str(student), force=True)
    assert listed.release.unproven == "there is no scorecard of these weights"
    assert "**UNPROVEN.**" in (listed.folder / "README.md").read_text()
    assert json.loads((listed.folder / "release.json").read_bytes())["unproven"]


def test_a_scorecard_of_other_weights_proves_nothing(
    student: Path, qlora: Path, scorecard: Path, tmp_path: Path
) -> None:
    registry = Registry(tmp_path / "releases")
    with pytest.raises(InputError, match="of other weights"):
        add_release(registry, "cards", qlora, base=str(student), scorecard=scorecard, force=True)


def test_what_is_no_weights_is_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="neither an adapter"):
        add_release(Registry(tmp_path / "releases"), "cards", tmp_path, force=True)


def test_a_gguf_file_is_released_with_its_tokenizer(student: Path, tmp_path: Path) -> None:
    file = write_gguf(str(student), tmp_path / "cards.gguf", "q8_0").file
    # A tokenizer that knows no limit says 10^30, more than 64 bits.
    assert json.loads((student / "tokenizer_config.json").read_bytes())["model_max_length"] > 1 << 64
    listed = add_release(Registry(tmp_path / "releases"), "cards", file, base=str(student), force=True)
    held = listed.folder / "tokenizer" / "tokenizer_config.json"
    assert json.loads(held.read_bytes())["model_max_length"] > 1 << 64
    assert "name_or_path" not in held.read_text()


def test_a_card_says_of_a_gate_that_it_was_not_measured(
    student: Path, lora: Path, scorecard: Path, tmp_path: Path
) -> None:
    card = json.loads((scorecard / "scorecard.json").read_bytes())
    card["gates"].append({"gate": "p95_ms <= 800", "value": None, "passed": False})
    (tmp_path / "scorecard.json").write_text(json.dumps(card))
    listed = add_release(
        Registry(tmp_path / "releases"), "cards", lora, base=str(student), scorecard=tmp_path, force=True
    )
    assert "| p95\\_ms &lt;= 800 | unknown | **fails** |" in (listed.folder / "README.md").read_text()
