"""SIGKILL at 100 random moments of a small run that is continued after each: answers lost, requests sent again against
those under way at the kills, and whether the dataset equals that of an uninterrupted run byte for byte."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from benchmarks.harness import loopback, table
from tests.support.storm import files_of, finish, storm
from tests.support.workspaces import probe

KILLS = 100
FILTERS = [{"kind": "exact"}, {"kind": "minhash", "threshold": 0.7}]


def main() -> None:
    os.environ.setdefault("TEACHER_KEY", "benchmark-key")
    with loopback("--latency", "0.2", "--jitter", "0.5") as server, tempfile.TemporaryDirectory() as name:
        calm, stormy = Path(name) / "calm", Path(name) / "storm"
        for folder in (calm, stormy):
            probe(folder, server.base_url, target=6000, filters=FILTERS)
        finish(calm)
        server.reset()
        seen = storm(stormy, kills=KILLS, seed=11, stats=server.stats, reference=files_of(calm))
    table(
        ["kills", "answers lost", "under way at the kills", "most at one kill", "sent twice", "dataset equal"],
        [[seen.kills, seen.lost, seen.under_way, seen.worst, seen.sent_twice, seen.equal]],
    )
