"""`distill generate --simulate`: the whole recipe offline, and what would have happened."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.text import Text

from distill.cli.console import err, run_loop
from distill.cli.progress import duration, money, watch

if TYPE_CHECKING:
    from distill.engine import Summary
    from distill.engine.rehearse import Rehearsal

__all__ = ["rehearse"]


def rehearse(path: Path, plan: str, *, quiet: bool) -> tuple[Summary, dict[str, Any]]:
    """Play a recipe through; returns the last session's summary and what the rehearsal adds to it."""
    from distill.engine.rehearse import Rehearsal, parse_plan

    rehearsal = Rehearsal(path, parse_plan(plan))
    err.print(Text("rehearsal", style="yellow"), "offline, simulated teachers: nothing is asked, nothing is paid")
    err.print(f"  {rehearsal.folder}, the clock runs {rehearsal.speed:,.3g} times as fast")

    async def work() -> Summary:
        async with watch(rehearsal.progress, quiet=quiet):
            return await rehearsal.execute()

    summary = run_loop(work(), drain=rehearsal.drain)
    return summary, _tell(rehearsal, summary)


def _tell(rehearsal: Rehearsal, summary: Summary) -> dict[str, Any]:
    crashes = rehearsal.crashes
    again = sum(crash.in_flight for crash in crashes)
    requests = summary.requests + sum(crash.requests for crash in crashes)
    seconds = summary.seconds + sum(crash.seconds for crash in crashes)
    retries = sum(teacher["retries"] for teacher in summary.teachers.values())
    err.print("")
    err.print(Text("would have happened", style="yellow"), f"{summary.state}: {summary.counts['kept']} rows kept")
    err.print(f"  {duration(seconds)} of asking, {money(summary.cost_usd)}, {requests:,} requests, {retries:,} retries")
    for number, crash in enumerate(crashes, start=1):
        err.print(
            f"  crash {number}: killed after {duration(crash.seconds)} with {crash.in_flight} requests under way, "
            "then continued"
        )
    if rehearsal.lag > 0.1:
        err.print(
            f"  this machine woke up {rehearsal.lag:.1f} s late on average, by the clock of the rehearsal: times are "
            f"that much too long for each answer. Say `speed={max(1.0, rehearsal.speed / 10):.3g}` for truer ones."
        )
    if crashes:
        err.print(f"  {again:,} requests asked again because of crashes; every stored answer was used again")
    return {
        "folder": str(rehearsal.folder),
        "speed": rehearsal.speed,
        "lag": round(rehearsal.lag, 3),
        "seconds": round(seconds, 3),
        "requests": requests,
        "asked_again": again,
        "crashes": [
            {"requests": crash.requests, "in_flight": crash.in_flight, "seconds": round(crash.seconds, 3)}
            for crash in crashes
        ],
    }
