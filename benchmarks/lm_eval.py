"""Exact match as lm-evaluation-harness counts it beside ours: the same student, the same items, the same prompt, two
programs. A small adapter on the embedded student is trained first. `LM_EVAL_PYTHON` names the Python of an environment
that has lm-eval 0.4.13 with torch, transformers and peft; without it there is nothing to compare with."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.harness import distill, table

MODEL = "smollm2-135m-instruct"
SYSTEM = "Name the animal and the place in the message. Answer with one JSON object: animal, place."
ANIMALS = ("cat", "dog", "horse", "owl", "fox", "goat", "hen", "mouse", "frog", "whale")
PLACES = ("barn", "garden", "harbour", "kitchen", "station", "forest", "market", "school", "attic", "river")
FORMS = ("There is a {a} in the {p}.", "In the {p} I saw a {a}!", "why is my {a} at the {p}", "A {a}? At the {p}?")
STEPS = 2


@dataclass(frozen=True)
class Found:
    """Both programs' figures."""

    ours: float
    ours_json: float
    theirs: float
    equal: float
    """Share of items with the same answer, surrounding space aside."""
    n: int


def rows(count: int, seed: int) -> list[dict[str, Any]]:
    """Messages and their answers."""
    draw = random.Random(seed)
    made: list[dict[str, Any]] = []
    for number in range(count):
        a, p = draw.choice(ANIMALS), draw.choice(PLACES)
        text = draw.choice(FORMS).format(a=a, p=p)
        turns = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": text}]
        made.append({"id": f"i{number}", "messages": turns, "answer": json.dumps({"animal": a, "place": p})})
    return made


def compare(folder: Path, python: str, *, items: int = 40, steps: int = STEPS) -> Found:
    """Train, score with both, and compare answer by answer."""
    training = [[*row["messages"], {"role": "assistant", "content": row["answer"]}] for row in rows(8 * steps, 1)]
    (folder / "train.jsonl").write_text("".join(json.dumps({"messages": turns}) + "\n" for turns in training))
    (folder / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows(items, 2)))
    settings = "adapter: lora\ndtype: float32\nbatch_size: 8\nlearning_rate: 1.0e-3\nschedule: linear\n"
    (folder / "quick.yaml").write_text(settings)
    common = ("--model", MODEL, "--adapter", "OUT", "--holdout", "test.jsonl", "--max-tokens", "32")
    train = f"train --data train.jsonl --model {MODEL} --recipe quick.yaml --max-steps {steps} --seed 1 --out OUT"
    distill(*train.split(), "--json", "--quiet", cwd=folder)
    metrics = ("--metric", "exact_match:as=text", "--metric", "exact_match", "--latency-items", "0")
    scored = distill("eval", *common, *metrics, "--out", "scores", "--json", "--quiet", cwd=folder)
    task = distill("export", "lm-eval", *common, "--out", "task", "--name", "animals", "--json", cwd=folder)
    theirs, answers = _run_harness(python, task.result["command"], folder)
    lines = [json.loads(line) for line in (folder / "scores/predictions.jsonl").read_text().splitlines()]
    same = [line["prediction"].strip() == answers[line["id"]].strip() for line in lines]
    found = scored.result["metrics"]
    return Found(found["exact_match:as=text"], found["exact_match"], theirs, sum(same) / len(same), len(same))


def _run_harness(python: str, command: list[str], folder: Path) -> tuple[float, dict[str, str]]:
    """The harness's figure, and its answers by item."""
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "HF_HOME": str(folder / "hf")}
    line = [python, "-m", *command, "--log_samples"]
    done = subprocess.run(line, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        sys.exit(f"lm-eval failed: {done.stderr[-3000:]}")
    results = json.loads(next((folder / "task/results").rglob("results_*.json")).read_text())
    samples = next((folder / "task/results").rglob("samples_*.jsonl")).read_text().splitlines()
    logged = [json.loads(line) for line in samples]
    answers = {str(line["doc"]["id"]): str(line["resps"][0][0]) for line in logged}
    return float(results["results"]["animals"]["exact_match,without_space"]), answers


def main() -> None:
    python = os.environ.get("LM_EVAL_PYTHON")
    if python is None:
        sys.exit("set LM_EVAL_PYTHON to the Python of an environment with lm-eval 0.4.13, torch, transformers and peft")
    folder = Path(tempfile.mkdtemp(prefix="lm-eval-"))
    try:
        found = compare(folder, python)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    head = ["items", "distill, text", "lm-eval, text", "equal answers", "distill, JSON"]
    table(head, [[found.n, found.ours, found.theirs, found.equal, found.ours_json]])
