"""Rows a second against a loopback teacher that takes 500 ms, as a share of the ideal (concurrency / latency), and the
client's CPU per row with everything in it: plan, render, ask, store, parse, write. The server shares the two cores."""

from __future__ import annotations

import tempfile
from pathlib import Path

from benchmarks.harness import distill, loopback, table, workspace

LATENCY = 0.5
CASES = ((64, 6_400), (256, 12_800), (1000, 30_000))


def main() -> None:
    rows: list[list[object]] = []
    with loopback("--latency", str(LATENCY)) as server:
        for concurrency, target in CASES:
            with tempfile.TemporaryDirectory() as folder:
                recipe = workspace(Path(folder), base_url=server.base_url, target=target, concurrency=concurrency)
                run = distill("generate", str(recipe), "--json", "--quiet", cwd=Path(folder))
            ideal = concurrency / LATENCY
            rate = run.result["kept"] / run.result["seconds"]
            rows.append([concurrency, target, rate, f"{rate / ideal:.1%}", run.cpu / target * 1e3, run.peak_mb])
    table(["concurrency", "rows", "rows/s", "of ideal", "CPU ms/row", "peak MB"], rows)
