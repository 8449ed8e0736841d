"""Resuming a run whose answers are stored: seconds from the start of the command until its first new request."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

from benchmarks.harness import distill, loopback, table, workspace

STORED = 100_000


def main() -> None:
    with loopback("--latency", "0") as server, tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        recipe = workspace(folder, base_url=server.base_url, target=STORED, concurrency=128)
        first = distill("generate", str(recipe), "--json", "--quiet", cwd=folder)
        # One row more: the same slots, then one that no store has. The plan of a larger target begins the same way.
        workspace(folder, base_url=server.base_url, target=STORED + 4, concurrency=128)
        server.reset()
        started = time.time()
        second = distill("generate", str(recipe), "--json", "--quiet", cwd=folder)
        stats = server.stats()
    table(
        ["stored answers", "sent again", "s to the first new request", "session s", "CPU s", "peak MB"],
        [
            [
                second.result["resumed_answers"],
                stats["requests"] - 4,
                stats["first_request_at"] - started,
                second.result["seconds"],
                second.cpu,
                second.peak_mb,
            ]
        ],
    )
    print(f"\nfirst run: {first.wall:.1f} s, {first.cpu / STORED * 1e3:.3g} ms CPU a row")
