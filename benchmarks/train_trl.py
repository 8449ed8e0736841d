"""`distill train` beside TRL's SFTTrainer: the same rows, base, LoRA, rows per update, epochs, learning rate, seed and
number type, each in a process of its own, in turns.

`TRL` is the script of TRL's documentation, which leaves everything else at TRL's defaults; `TRL, tuned` is told what
helps on a CPU too: no gradient checkpointing, no autocast over weights that are bfloat16 already. Rows are messages of
the shipped taxonomy with their labels; needs the embedded student (`distill models pull smollm2-135m-instruct`).

A token is one of a row that went through the model, padding not counted. Seconds are those of the training, from its
first update's beginning to its last one's end: loading is left out, and what a trainer tries out on the first update is
not. Peak memory is the process's own.

    --short          24 rows in two rounds: about three minutes on two idle cores
    --rows N         rows trained; 200 else
    --rounds N       trainings of each; 3 else
    --only WAY,…     of distill, trl, trl-tuned
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from benchmarks.harness import ROOT, distill, python, table

MODEL = "smollm2-135m-instruct"
WAYS = {"distill": "distill train", "trl": "TRL", "trl-tuned": "TRL, tuned"}
BATCH, RATE, SEED, RANK = 8, 4e-4, 1, 16
SETTINGS = f"""\
adapter: lora
lora: {{r: {RANK}, alpha: {2 * RANK}, dropout: 0.0, target: all-linear}}
epochs: 1
learning_rate: {RATE}
schedule: cosine
warmup: 0.05
batch_size: {BATCH}
dtype: bfloat16
"""


def write_rows(path: Path, count: int) -> None:
    """Messages of bank customers, from one sentence to several paragraphs, and the labels of their leaf."""
    with path.open("w") as file:
        for turns in islice(_conversations(), count):
            file.write(json.dumps({"messages": turns}) + "\n")


def _conversations() -> Iterator[list[dict[str, str]]]:
    from distill.planning import Planner, load_taxonomy

    system = (ROOT / "prompts/support/system.j2").read_text().strip()
    taxonomy = load_taxonomy(ROOT / "taxonomies/support.yaml")
    for slot in Planner("rows", taxonomy, seed=SEED, seeds_per_slot=4).slots():
        said = [slot.describe["case"], slot.topic.description, *(seed.text.strip() for seed in slot.seeds)]
        labels = {name: slot.labels[name] for name in ("intent", "urgency", "product")}
        yield [
            {"role": "system", "content": system},
            # Short messages are common, long ones are rare.
            {"role": "user", "content": " ".join(said[: (1, 2, 1, 3, 2, 6)[slot.index % 6]])},
            {"role": "assistant", "content": json.dumps(labels)},
        ]


def _run(way: str, folder: Path, out: Path) -> dict[str, Any]:
    if way == "distill":
        arguments = ["--data", "rows.jsonl", "--model", MODEL, "--recipe", "settings.yaml", "--seed", str(SEED)]
        done = distill("train", *arguments, "--out", str(out), "--json", "--quiet", cwd=folder)
    else:
        done = python("-m", "benchmarks.train_trl_script", way, str(folder / "rows.jsonl"), str(out), cwd=ROOT)
    if done.code:
        sys.exit(f"{WAYS[way]} ended with {done.code}")
    return {**done.result, "cpu": done.cpu}


def main() -> None:
    given = argparse.ArgumentParser(prog="python -m benchmarks train_trl", allow_abbrev=False)
    given.add_argument("--short", action="store_true")
    given.add_argument("--rows", type=int)
    given.add_argument("--rounds", type=int)
    given.add_argument("--only", default=",".join(WAYS))
    options = given.parse_args(sys.argv[sys.argv.index("train_trl") + 1 :])
    rows = options.rows or (24 if options.short else 200)
    rounds = options.rounds or (2 if options.short else 3)
    ways = [way for way in WAYS if way in options.only.split(",")]
    found: dict[str, list[dict[str, Any]]] = {way: [] for way in ways}
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        write_rows(folder / "rows.jsonl", rows)
        (folder / "settings.yaml").write_text(SETTINGS)
        for turn in range(rounds):
            for way in ways if turn % 2 == 0 else reversed(ways):
                found[way].append(_run(way, folder, folder / f"{way}-{turn}"))
                print(f"{WAYS[way]}: {found[way][-1]['tokens_per_second']:.0f} tokens/s", file=sys.stderr, flush=True)
    _print(found)


def _print(found: dict[str, list[dict[str, Any]]]) -> None:
    def median(way: str, key: str) -> float:
        return statistics.median(one[key] for one in found[way])

    lines: list[list[object]] = []
    ours = next(iter(found))
    for way, name in WAYS.items():
        if way not in found:
            continue
        speed, peak = median(way, "tokens_per_second"), median(way, "peak_memory_bytes")
        training, all_of_it = median(way, "train_cpu_seconds"), median(way, "cpu")
        ratios = median(ours, "tokens_per_second") / speed, median(ours, "peak_memory_bytes") / peak
        per_cpu = [median(one, "tokens") / median(one, "train_cpu_seconds") for one in (ours, way)]
        figures = [name, speed, training, all_of_it, peak / 1e9, found[way][0]["loss_last"]]
        lines.append([*figures, ratios[0], per_cpu[0] / per_cpu[1], ratios[1]])
    tokens = {way: round(median(way, "tokens")) for way in found}
    print(f"Medians of {len(found[ours])}; tokens of a training: {tokens}. The last three columns are the figure of")
    print(f"{WAYS[ours]} over each one's: tokens/s, tokens per CPU second of training, peak memory.\n")
    head = ["trainer", "tokens/s", "CPU s, training", "CPU s, in all", "peak GB", "last loss"]
    table([*head, "tokens/s, ratio", "per CPU s, ratio", "memory, ratio"], lines)


if __name__ == "__main__":
    main()
