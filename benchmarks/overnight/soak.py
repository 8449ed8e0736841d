"""A soak: a million rows from the simulated teacher at zero latency, through plan, gateway, store, parse, cheap filters
and Parquet, then the same command for a few rows more. `peak MB` is that of the whole command; `half MB` its memory
when half of the time had passed, so that growth shows. Resuming replays every stored answer.

    python -m benchmarks overnight-soak [--rows 1000000] [--folder FOLDER]
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.harness import table
from benchmarks.overnight import tree
from benchmarks.overnight.options import numbers, read
from tests.support.workspaces import rehearsal

FILTERS = [{"kind": "refusal"}, {"kind": "length", "min_chars": 20}, {"kind": "repetition"}, {"kind": "exact"}]
HEAD = [
    "rows",
    "rows/s",
    "CPU ms/row",
    "half MB",
    "peak MB",
    "rejected",
    "store bytes/row",
    "Parquet bytes/row",
    "run seconds",
]


def main() -> None:
    given = argparse.ArgumentParser(prog="python -m benchmarks overnight-soak", allow_abbrev=False)
    given.add_argument("--rows", type=numbers, default=(1_000_000,), metavar="N,…")
    given.add_argument("--folder", type=Path, help="where the workspace is made; left out, a temporary one")
    options = read(given, "overnight-soak")
    first: list[list[object]] = []
    again: list[list[object]] = []
    for target in options.rows:
        with tempfile.TemporaryDirectory(dir=options.folder) as name:
            folder = Path(name)
            told, ended = _generate(folder, target)
            store = sum(file.stat().st_size for file in (folder / ".distill").glob("answers.sqlite*"))
            run = folder / "out"
            parquet = sum(file.stat().st_size for file in run.glob("*.parquet"))
            rejected = sum(sum(reasons.values()) for reasons in told["rejected"].values())
            first.append(
                [
                    target,
                    target / ended.wall,
                    ended.cpu / target * 1e3,
                    ended.half_mb,
                    ended.peak_mb,
                    rejected,
                    store / told["requests"],
                    parquet / target,
                    ended.wall,
                ]
            )
            table(HEAD, first[-1:])
            more, resumed = _generate(folder, target + 4, run="again")
            again.append(
                [
                    target,
                    more["resumed_answers"],
                    more["requests"],
                    resumed.wall,
                    resumed.cpu,
                    resumed.peak_mb,
                ]
            )
    print()
    table(["rows", "answers replayed", "asked", "resumed in s", "CPU s", "peak MB"], again)


def _generate(folder: Path, target: int, *, run: str = "out") -> tuple[dict[str, object], tree.Ended]:
    rehearsal(
        folder,
        teacher={"simulate": {"latency_s": 0.0}, "max_concurrency": 256, "sampling": {"max_tokens": 64}},
        plan={"taxonomy": "taxonomies/probe.yaml", "target": target},
        filters=FILTERS,
        dataset={"validation": 0.01},
    )
    began = time.monotonic()
    ended = tree.run(
        [sys.executable, "-m", "distill", "generate", "probe.yaml", "--run", run, "--json", "--quiet"],
        cwd=folder,
        env=dict(os.environ),
        limit=6 * 3600,
    )
    if ended.code != 0:
        sys.exit(f"exit code {ended.code} after {time.monotonic() - began:.0f} s:\n{ended.err[-2000:]}")
    return json.loads(ended.out.splitlines()[-1]), ended
