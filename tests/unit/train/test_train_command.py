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
    with pytest.raises(InputError, match="--method dpo, kto or orpo"):
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


def test_the_task_metric_looks_at_what_follows_the_thoughts(
    folder: Path, student: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    thought = json.loads((folder / "train.jsonl").read_text().splitlines()[0])
    thought["messages"][1]["content"] = "<think>\nthe card was lost\n</think>\n\nblocked"
    (folder / "thought.jsonl").write_text((json.dumps(thought) + "\n") * 4)
    plain = json.loads((folder / "train.jsonl").read_text().splitlines()[0])
    (folder / "plain.jsonl").write_text(json.dumps(plain) + "\n")
    (folder / "fast.yaml").write_text(FAST.replace("max_steps: 3", "max_steps: 40") + "adapter: full\n")
    found = command(
        f"train --data thought.jsonl --validation plain.jsonl --model {student} --recipe fast.yaml --out OUT "
        "--watch exact_match",
        capsys,
    )
    assert found["task"]["best"] == 1.0


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


def test_general_rows_are_mixed_in_at_their_share_and_without_what_the_holdout_asks(
    folder: Path, student: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = "which of the seven rivers of the old kingdom does the ferry to the northern market cross"
    general = [{"prompt": f"{asked} number {n}", "response": f"the one called {n}"} for n in (1,)]
    general += [{"prompt": f"name {n} things that are blue like the sky over {n}", "response": "sky"} for n in range(9)]
    (folder / "general.jsonl").write_text("".join(json.dumps(row) + "\n" for row in general))
    holdout = {"messages": [{"role": "user", "content": f"{asked} number 1"}], "answer": "x"}
    (folder / "holdout.jsonl").write_text(json.dumps(holdout) + "\n")
    text = f"train --data train.jsonl --model {student} --recipe fast.yaml --mix general.jsonl --mix-share 0.5"
    found = command(f"{text} --against holdout.jsonl --out OUT --max-steps 1", capsys)
    assert (found["rows"], found["general_rows"]) == (16, 8)
    assert found["sources"] == ["train.jsonl", "general.jsonl"]
    app([*f"{text} --against holdout.jsonl --out OUT2 --max-steps 1".split()], standalone_mode=False)
    assert "1 left out by decontaminate" in capsys.readouterr().err
    with pytest.raises(InputError, match=r"dataset\.mix"):
        command("train support --mix general.jsonl", capsys)


@pytest.mark.parametrize("method", ["sft", "dpo", "kto"])
def test_a_holdout_is_looked_for_in_the_rows_of_a_file(
    folder: Path, student: Path, capsys: pytest.CaptureFixture[str], method: str
) -> None:
    texts = ["My card was LOST 3", "my card was found"]
    items = [{"messages": [{"role": "user", "content": text}], "answer": "x"} for text in texts]
    (folder / "holdout.jsonl").write_text("".join(json.dumps(item) + "\n" for item in items))
    data = "train" if method == "sft" else "pairs"
    text = f"train --data {data}.jsonl --model {student} --recipe fast.yaml --method {method} --max-steps 1 --out OUT"
    assert command(f"{text} --against holdout.jsonl", capsys)["holdout_leaks"] == 1
    app(f"{text} --against holdout.jsonl".split(), standalone_mode=False)
    assert "1 holdout items stand in the training rows, 1 in " in capsys.readouterr().err
    assert "holdout_leaks" not in command(text, capsys)


@pytest.mark.parametrize(
    ("method", "data", "figure"),
    [
        ("kto", "pairs", "accuracy"),
        ("orpo", "pairs", "accuracy"),
        ("distill", "train", "divergence"),
        ("on-policy", "train", "divergence"),
    ],
)
def test_every_method_is_the_same_command(
    folder: Path, student: Path, capsys: pytest.CaptureFixture[str], method: str, data: str, figure: str
) -> None:
    held_out = "watched" if data == "train" else data
    (folder / "fast.yaml").write_text(f"{FAST}distillation: {{max_tokens: 4}}\n")
    text = f"train --data {data}.jsonl --validation {held_out}.jsonl --model {student} --recipe fast.yaml --out OUT"
    teacher = f" --teacher {student}" if data == "train" else ""
    found = command(f"{text} --method {method}{teacher}", capsys)
    assert (found["method"], found["weights"], found["steps"]) == (method, "OUT/adapter", 3)
    assert figure in found["held_out"]
    assert {"seconds", "peak_memory_bytes", "log", "tokens_per_second", "trained_tokens"} <= found.keys()
    assert (folder / "OUT/adapter/adapter_model.safetensors").is_file()


def test_distillation_without_a_teacher_and_without_its_words_is_refused(
    folder: Path, student: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for more in ("--out OUT", "--plan"):
        with pytest.raises(InputError, match="no row holds log-probabilities"):
            command(f"train --data train.jsonl --model {student} --recipe fast.yaml {more} --method distill", capsys)


@pytest.mark.parametrize(("method", "data"), [("kto", "pairs"), ("dpo", "pairs"), ("distill", "train")])
def test_every_method_is_planned(
    folder: Path, student: Path, capsys: pytest.CaptureFixture[str], method: str, data: str
) -> None:
    teacher = f" --teacher {student}" if method == "distill" else ""
    text = f"train --data {data}.jsonl --model {student} --recipe fast.yaml --method {method}{teacher} --plan"
    found = command(text, capsys)
    assert found["peak_memory_bytes"] == sum(found["parts"].values())
    assert ("teacher" in found["parts"]) is (method == "distill")
