"""Rows for a whole chain, and what must not depend on how they were filtered."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

from distill.filters import FilterContext, FilterReport, filter_file
from distill.recipe import FilterStep, parse

CHAIN: list[dict[str, Any]] = [
    {"kind": "length", "fields": ["prompt"], "min_chars": 12},
    {"kind": "exact", "fields": ["prompt"]},
    {"kind": "minhash", "fields": ["prompt", "response"]},
    {"kind": "decontaminate", "fields": ["prompt"], "against": [{"path": "eval.jsonl", "field": "q"}],
     "false_positive_rate": 0.01},
    {"kind": "refusal"},
    {"kind": "pii"},
]  # fmt: skip


def write_rows(folder: Path, rows: int = 3000) -> Path:
    """Rows with everything in them that the chain drops or changes, and the eval set beside them."""
    rng = random.Random(3)
    words = ["".join(rng.choices("etaoinshrdlucm", k=rng.randint(3, 8))) for _ in range(900)]
    items = [" ".join(rng.choices(words, k=14)) + f" {n} and {n + 3}" for n in range(150)]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "eval.jsonl").write_text("".join(json.dumps({"q": item}) + "\n" for item in items))
    made: list[dict[str, Any]] = []
    for n in range(rows):
        prompt = " ".join(rng.choices(words, k=rng.randint(9, 30)))
        kind = n % 10
        if kind == 1:
            prompt = made[rng.randrange(len(made))]["prompt"]  # exact
        elif kind == 2:
            prompt = f"{made[rng.randrange(len(made))]['prompt']} {rng.choice(words)}"  # near
        elif kind == 3:
            prompt = rng.choice(items)
        elif kind == 4:
            prompt = f"{prompt} mail ann{n}@example.org or call +1 415 555 26{n % 90 + 10}"
        elif n % 20 == 5:
            prompt = "short"
        answer = "I'm sorry, but I can't help with that." if n % 17 == 0 else f"Answer {n}: {rng.choice(words)}."
        made.append({"prompt": prompt, "response": answer, "n": n})
    source = folder / "rows.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in made))
    return source


def steps(*values: dict[str, Any]) -> tuple[FilterStep, ...]:
    """A chain; `CHAIN` where none is given."""
    return parse(tuple[FilterStep, ...], list(values or CHAIN))


def run(source: Path, out: Path, chain: tuple[FilterStep, ...] | None = None, **options: Any) -> FilterReport:
    """Filter the rows in the folder that they are in."""
    return filter_file(source, chain or steps(), out, context=FilterContext(folder=source.parent), **options)


def results(report: FilterReport, out: Path) -> dict[str, Any]:
    """What the report counts, and the bytes of every file."""
    told = report.as_json()
    names = ("in", "kept", "rejected", "invalid", "problems", "calibrated", "masked")
    return {name: told[name] for name in names} | {
        path.name: path.read_bytes() for path in out.iterdir() if path.is_file()
    }
