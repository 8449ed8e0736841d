"""How often a run's totals fall inside the interval that `distill estimate` stated for them: recipes with faults of
several kinds against the rehearsal teacher, each with seeds of its own. The interval is stated as 80 %."""

from __future__ import annotations

import asyncio
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

from benchmarks.harness import table
from distill.engine import open_run, prepare
from distill.engine.estimate import estimate
from distill.engine.estimate_model import Interval
from distill.recipe import load_recipe
from tests.support.workspaces import rehearsal

SEEDS = range(2000, 2020)
FILTERS = [{"kind": "refusal"}, {"kind": "exact", "fields": ["response"]}, {"kind": "length", "min_chars": 40}]
CASES: dict[str, dict[str, Any]] = {
    "no faults": {},
    "a few of each": {"prefusal": 0.06, "plength": 0.04, "pduplicate": 0.1, "p500": 0.02},
    "many refusals": {"prefusal": 0.35},
    "many repetitions": {"pduplicate": 0.4},
    "half are cut": {"plength": 0.5},
}


def main() -> None:
    rows: list[list[object]] = []
    for name, faults in CASES.items():
        hits: Counter[str] = Counter()
        for seed in SEEDS:
            with tempfile.TemporaryDirectory() as folder:
                hits.update(asyncio.run(_rehearse(Path(folder), seed, faults)))
        rows.append([name, *(f"{hits[what]} of {len(SEEDS)}" for what in ("cost", "per row", "slots", "rounds"))])
    table(["teacher", "cost inside", "cost a kept row", "slots", "rounds"], rows)


async def _rehearse(folder: Path, seed: int, faults: dict[str, Any]) -> list[str]:
    """What of one run fell inside."""
    teacher = {
        "simulate": {"latency_s": 0.0, "seed": seed, **faults},
        "price": {"input": 3, "output": 15},
        "sampling": {"max_tokens": 120},
    }
    plan = {"taxonomy": "taxonomies/probe.yaml", "target": 400}
    path = rehearsal(folder, teacher=teacher, seed=seed, filters=FILTERS, plan=plan)
    said = await estimate(prepare(load_recipe(path)), 60)
    told = (await open_run(path).execute()).as_json()
    cost = told["cost_usd"] + told["reused_cost_usd"]
    figures: dict[str, tuple[float, Interval | None]] = {
        "cost": (cost, said.cost_usd),
        "per row": (cost / max(1, told["kept"]), said.per_accepted_usd),
        "slots": (told["planned"], said.slots),
        "rounds": (told["rounds"], said.rounds),
    }
    return [name for name, (value, stated) in figures.items() if stated is not None and _inside(value, stated)]


def _inside(value: float, stated: Interval) -> bool:
    return stated.low * 0.9999 <= value <= stated.high * 1.0001
