"""`distill train` as a user writes it, in this process, on a student with two layers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from distill.cli import app
from distill.cli.seeds import spread
from distill.errors import InputError

FAST = "batch_size: 4\nmax_steps: 3\nlearning_rate: 5.0e-3\ndtype: float32\n"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    rows, pairs = [], []
    for number in range(8):
        question = [{"role": "user", "content": f"my card was lost {number}"}]
        rows.append({"messages": [*question, {"role": "assistant", "content": "blocked"}]})
        pairs.append({"prompt": f"my card was lost {number}", "chosen": "blocked", "rejected": "no idea"})
    for name, items in (("train", rows), ("watched", rows[:3]), ("pairs", pairs)):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(item) + "\n" for item in items))
    (tmp_path / "fast.yaml").write_text(FAST)
    (tmp_path / "pairs.yaml").write_text(f"method: dpo\n{FAST}")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def command(text: str, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    app([*text.split(), "--json", "--quiet"], standalone_mode=False)
    return json.loads(capsys.readouterr().out.splitlines()[-1])


def test_preferences_follow_supervised_training_without_naming_the_model_again(
    folder: Path, student: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = command(f"train --data train.jsonl --model {student} --recipe fast.yaml --out OUT --seed 1", capsys)
    assert (first["method"], first["weights"], first["steps"]) == ("sft", "OUT/adapter", 3)
    second = command(
        "train --data pairs.jsonl --method dpo --adapter OUT/adapter --out OUT2 --recipe pairs.yaml "
        "--validation pairs.jsonl",
        capsys,
    )
    assert (second["method"], second["model"], second["weights"]) == ("dpo", "tiny-llama", "OUT2/adapter")
    assert second["held_out"]["pairs"] == 8
    assert {"seconds", "peak_memory_bytes", "log"} <= second.keys()
    assert not (folder / "OUT2/adapter/ref").exists()
    with pytest.raises(InputError, match="--method dpo only"):
        command(f"train --data train.jsonl --model {student} --adapter OUT --out OUT3", capsys)


def test_seeds_are_trained_one_by_one_and_compared(
    folder: Path, student: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = (
        f"train --data train.jsonl --validation watched.jsonl --model {student} --recipe fast.yaml --out OUT --seeds 2"
    )
    found = command(f"{text} --seed 4 --watch exact_match", capsys)
    assert [entry["seed"] for entry in found["seeds"]] == [4, 5]
    assert all((folder / entry["weights"]).is_dir() for entry in found["seeds"])
    losses = found["figures"]["loss_last"]
    assert len(set(losses["values"])) == 2
    assert losses["mean"] == pytest.approx(sum(losses["values"]) / 2)
    assert losses["stdev"] > 0
    assert set(found["figures"]) == {"loss_last", "validation_loss", "task.best"}


def test_the_spread_is_that_of_figures_every_training_has() -> None:
    found = [{"loss_last": 1.0, "held_out": {"accuracy": 0.5}}, {"loss_last": 2.0, "held_out": None}]
    assert spread(found) == {"loss_last": {"mean": 1.5, "stdev": pytest.approx(0.7071, abs=1e-4), "values": [1.0, 2.0]}}


def test_a_plan_trains_nothing(folder: Path, student: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = command(f"train --data train.jsonl --model {student} --recipe fast.yaml --plan", capsys)
    assert found["fits"]
    assert found["steps"] == 3
    assert sum(found["parts"].values()) == found["peak_memory_bytes"] <= found["available_bytes"]
    assert found["seconds"] >= 0
    assert not (folder / "OUT").exists()
