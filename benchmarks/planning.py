"""Slots a second, and how even the plan is: the largest deviation of a leaf, of a value and of a pair of values from
its share, over all prefixes that were looked at."""

from __future__ import annotations

import itertools
import time
from pathlib import Path

from benchmarks.harness import ROOT, table
from distill.planning import Planner, load_taxonomy


def main() -> None:
    rows: list[list[object]] = []
    for file in (ROOT / "taxonomies").glob("*.yaml"):
        planner = Planner("bench", load_taxonomy(Path(file)), (), seed=7, seeds_per_slot=2, adversarial_share=None)
        started = time.process_time()
        count = sum(1 for _ in itertools.islice(planner.slots(), 20_000))
        rows.append([file.stem, count, (time.process_time() - started) / count * 1e6])
    table(["taxonomy", "slots", "CPU µs a slot"], rows)
