"""Peak memory of a whole run at 1k, 10k and 100k rows: flat, because rows are written as they are decided."""

from __future__ import annotations

import tempfile
from pathlib import Path

from benchmarks.harness import distill, loopback, table, workspace


def main() -> None:
    rows: list[list[object]] = []
    with loopback("--latency", "0.02") as server:
        for target in (1_000, 10_000, 100_000):
            with tempfile.TemporaryDirectory() as folder:
                recipe = workspace(Path(folder), base_url=server.base_url, target=target, concurrency=128)
                run = distill("generate", str(recipe), "--json", "--quiet", cwd=Path(folder))
                store = sum(file.stat().st_size for file in (Path(folder) / ".distill").glob("answers.sqlite*"))
            rows.append([target, run.peak_mb, run.cpu / target * 1e3, target / run.wall, store / target])
    table(["rows", "peak MB", "CPU ms/row", "rows/s", "store bytes/row"], rows)
