"""A limit of 600 requests a minute: the share of it that is used, and the share of requests answered 429 by a server
that enforces the same limit."""

from __future__ import annotations

import tempfile
from pathlib import Path

from benchmarks.harness import distill, loopback, table, workspace

RPM = 600


def main() -> None:
    rows: list[list[object]] = []
    for seconds in (60, 180):
        target = RPM * seconds // 60
        with loopback("--latency", "0.5", "--rpm", str(RPM)) as server, tempfile.TemporaryDirectory() as folder:
            recipe = workspace(
                Path(folder),
                base_url=server.base_url,
                target=target,
                concurrency=256,
                limits=f"limits: {{requests_per_minute: {RPM}}}",
            )
            run = distill("generate", str(recipe), "--json", "--quiet", cwd=Path(folder))
            stats = server.stats()
        used = run.result["kept"] / run.result["seconds"] * 60 / RPM
        refused = stats["faults"].get("limit", 0) / stats["requests"]
        rows.append([target, run.result["seconds"], f"{used:.1%}", f"{refused:.2%}"])
    table(["rows", "seconds", "of the limit used", "answered 429"], rows)
