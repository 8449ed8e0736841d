"""Runs in this process, at many times the speed of the clock, and the books they leave.

Waiting is the gateway's alone (pauses, retries, patience), so a clock that runs faster changes nothing but the time
a test takes. What the server and the teacher's own timeout take is real.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from distill.dataset import Row
from distill.engine import Run, open_run
from distill.errors import DistillError

__all__ = ["Ended", "check_books", "faster", "session"]

LIMIT_S = 120.0


@dataclass(frozen=True)
class Ended:
    """How a session ended: what `--json` would print, the exit code, and the error where there was one."""

    told: dict[str, Any]
    code: int
    error: DistillError | None
    run: Run

    @property
    def path(self) -> Path:
        return self.run.directory.path


def faster(run: Run, speed: float) -> Run:
    """The same run on a clock of its own."""

    async def sleep(seconds: float) -> None:
        await asyncio.sleep(seconds / speed)

    return Run(run.prepared, run.directory, clock=lambda: time.monotonic() * speed, sleep=sleep)


async def session(
    recipe: Path,
    *,
    run: Path | None = None,
    speed: float = 50.0,
    emit: Callable[[list[Row]], Awaitable[None]] | None = None,
    limit: float = LIMIT_S,
) -> Ended:
    """One session of the recipe's run. A session that does not end within `limit` seconds is a hang."""
    going = faster(open_run(recipe, run=run), speed)
    async with asyncio.timeout(limit):
        try:
            summary = await going.execute(emit)
        except DistillError as error:
            told = going.summary.as_json() if going.summary is not None else {}
            return Ended(told, error.exit_code, error, going)
    return Ended(summary.as_json(), summary.exit_code, None, going)


def check_books(ended: Ended) -> None:
    """Every row has one fate and every cent a place; what is told is what is on disk."""
    told = ended.told
    rejected = sum(sum(reasons.values()) for reasons in told["rejected"].values())
    failed = sum(told["failed"].values())
    assert told["planned"] == told["kept"] + rejected + failed + told["pending"]
    counts, costs = {}, {}
    for name in ("rows", "rejected", "failed"):
        table = pq.read_table(ended.path / f"{name}.parquet", columns=["id", "cost_usd"])
        counts[name] = table.num_rows
        costs[name] = sum(table["cost_usd"].to_pylist())
        assert len(set(table["id"].to_pylist())) == table.num_rows
    assert counts == {"rows": told["kept"], "rejected": rejected, "failed": failed}
    fates = told["cost_by_fate_usd"]
    for name, fate in (("rows", "kept"), ("rejected", "rejected"), ("failed", "failed")):
        assert abs(costs[name] - fates[fate]) < 1e-9
    assert abs(sum(fates.values()) - told["cost_usd"] - told["reused_cost_usd"]) < 1e-9
