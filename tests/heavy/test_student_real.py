"""The embedded student, trained and scored by the commands as a user writes them."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.heavy

SYSTEM = "Route the message. Answer with one JSON object: intent, urgency."
TEXTS = {
    "lost": ("high", ["I lost my card {w}", "my card is gone since {w}", "cannot find my card, it fell out {w}"]),
    "declined": ("medium", ["my card was refused {w}", "payment did not go through {w}", "the shop said no {w}"]),
    "rate": ("low", ["what is the interest on a loan", "how much would I pay for borrowing {w}", "loan rate please"]),
    "close": ("low", ["please close my account", "I want to leave your bank {w}", "how do I shut my account down"]),
}
WHEN = ("yesterday", "this morning", "on Monday", "on the train", "last week", "in Madrid")


def rows(count: int, seed: int) -> list[dict[str, Any]]:
    draw = random.Random(seed)
    made: list[dict[str, Any]] = []
    for _ in range(count):
        intent = draw.choice(list(TEXTS))
        urgency, texts = TEXTS[intent]
        text = draw.choice(["", "Hi, ", "Hello. "]) + draw.choice(texts).format(w=draw.choice(WHEN))
        turns = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": text}]
        made.append({"messages": turns, "answer": json.dumps({"intent": intent, "urgency": urgency}), "leaf": intent})
    return made


def write(folder: Path) -> None:
    training = [[*row["messages"], {"role": "assistant", "content": row["answer"]}] for row in rows(240, 1)]
    (folder / "train.jsonl").write_text("".join(json.dumps({"messages": turns}) + "\n" for turns in training))
    (folder / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows(40, 2)))


def distill(folder: Path, *arguments: str) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-m", "distill", *arguments], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module", autouse=True)
def _student() -> None:
    from distill.errors import DistillError
    from distill.models import folder

    try:
        folder("smollm2-135m-instruct")
    except DistillError as error:
        pytest.skip(str(error))


@pytest.mark.parametrize("recipe", ["sft-lora", "sft-qlora"])
def test_a_student_learns_the_task(recipe: str, tmp_path: Path) -> None:
    write(tmp_path)
    model = "smollm2-135m-instruct"
    trained = distill(
        tmp_path,
        *f"train --data train.jsonl --model {model} --recipe {recipe} --out OUT --seed 1 --epochs 2 --json".split(),
    )
    assert trained["loss_last"] < 0.1 * trained["loss_first"]
    assert trained["own_loss"]
    assert trained["shared_prefix"]
    assert trained["peak_memory_bytes"] < 4e9
    score = (
        "--holdout test.jsonl --metric exact_match --metric macro_f1:field=intent --metric json_valid --max-tokens 32"
    )
    found = distill(tmp_path, *f"eval --model {model} --adapter OUT --base {score} --out scores --json".split())
    base, student = found["systems"]["base"]["metrics"], found["systems"]["student"]["metrics"]
    assert base["json_valid"]["value"] < 0.2
    assert student["json_valid"]["value"] > 0.95
    assert student["exact_match"]["value"] > 0.9
    again = distill(tmp_path, *f"eval --model {model} --adapter OUT --base {score} --out scores --json".split())
    assert again["reused"]
    assert again["metrics"] == found["metrics"]
    assert again["seconds"] < found["seconds"] / 3


def test_a_stopped_training_goes_on(tmp_path: Path) -> None:
    write(tmp_path)
    command = "train --data train.jsonl --model smollm2-135m-instruct --recipe sft-lora --out OUT --max-steps 8 --json"
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen([sys.executable, "-m", "distill", *command.split()], cwd=tmp_path, **quiet)
    log = tmp_path / "OUT/log.jsonl"
    while not log.is_file() or len(log.read_bytes().splitlines()) < 3:
        assert process.poll() is None
        time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    assert process.wait(120) == 3
    result = distill(tmp_path, *command.split())
    assert 3 <= result["resumed_from"] < 8
    losses = json.loads((tmp_path / "OUT/train.json").read_bytes())["losses"]
    assert [entry["step"] for entry in losses] == [1, 2, 3, 4, 5, 6, 7, 8]


def test_preferences_are_learned_on_top_of_an_adapter(tmp_path: Path) -> None:
    """The right routing against another one: what few steps of supervised training left unsure, pairs make sure."""

    def pairs(count: int, seed: int) -> str:
        draw = random.Random(seed)
        made: list[dict[str, Any]] = []
        for row in rows(count, seed):
            other = draw.choice([intent for intent in TEXTS if intent != row["leaf"]])
            wrong = json.dumps({"intent": other, "urgency": TEXTS[other][0]})
            made.append({"prompt": row["messages"], "chosen": row["answer"], "rejected": wrong})
        return "".join(json.dumps(pair) + "\n" for pair in made)

    write(tmp_path)
    (tmp_path / "pairs.jsonl").write_text(pairs(120, 3))
    (tmp_path / "held-out.jsonl").write_text(pairs(40, 4))
    model = "smollm2-135m-instruct"
    first = f"train --data train.jsonl --model {model} --recipe sft-lora --out OUT --seed 1 --max-steps 8 --json"
    distill(tmp_path, *first.split())
    second = "train --data pairs.jsonl --method dpo --adapter OUT/adapter --out OUT2 --json"
    found = distill(tmp_path, *second.split(), "--validation", "held-out.jsonl")
    held_out = found["held_out"]
    assert held_out["accuracy"] > 0.7
    assert held_out["margin"] > 0.05
    assert held_out["prefers_chosen"] > held_out["prefers_chosen_before"]
    assert not (tmp_path / "OUT2/adapter/ref").exists()
    assert found["peak_memory_bytes"] < 4e9
