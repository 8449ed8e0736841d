"""Live progress of a run: a small table that redraws on a terminal, a line every ten seconds in a log."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable
from datetime import datetime
from decimal import Decimal
from typing import TYPE_CHECKING

from rich.console import Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from distill.cli.console import err

if TYPE_CHECKING:
    from distill.engine import Progress

__all__ = ["duration", "megabytes", "money", "watch"]

_REDRAW = 0.25
_LOG_EVERY = 10.0


@contextlib.asynccontextmanager
async def watch(progress: Callable[[], Progress], *, quiet: bool = False) -> AsyncGenerator[None]:
    """Show `progress()` until the block ends."""
    if quiet:
        yield
        return
    async with asyncio.TaskGroup() as group:
        task = group.create_task(_draw(progress) if err.is_terminal else _log(progress))
        try:
            yield
        finally:
            task.cancel()


async def _draw(progress: Callable[[], Progress]) -> None:
    with Live(console=err, auto_refresh=False, transient=True) as live:
        while True:
            live.update(_panel(progress()), refresh=True)
            await asyncio.sleep(_REDRAW)


async def _log(progress: Callable[[], Progress]) -> None:
    while True:
        await asyncio.sleep(_LOG_EVERY)
        # Later, in a file, the time of day is what one looks for.
        err.print(f"{datetime.now():%H:%M:%S} {_line(progress())}")


def _panel(p: Progress) -> Group:
    table = Table.grid(padding=(0, 3))
    table.add_row(
        Text(f"{p.kept:,} of {p.target:,} rows", style="bold"),
        f"{p.rows_per_second:.1f} rows/s",
        f"left {duration(p.seconds_left)}",
        _cost(p),
        f"{p.input_tokens + p.output_tokens:,} tokens",
        f"round {p.round}",
    )
    table.add_row(
        f"{p.in_flight} in flight",
        f"{p.requests:,} asked",
        f"{p.reused:,} from store",
        f"{p.retries:,} retries",
        f"{p.failed:,} failed",
        ", ".join(f"{name} −{count}" for name, count in p.rejected.items()) or "none rejected",
    )
    bar = Table.grid()  # a bar by itself does not end its line
    bar.add_row(ProgressBar(total=p.target, completed=p.kept, width=80))
    return Group(bar, table, *(Text(waiting, style="yellow") for waiting in p.waiting))


def _line(p: Progress) -> str:
    """What matters most comes first: how far, how fast, how long, how dear; then what goes on, then what is lost."""
    rejected = sum(p.rejected.values())
    judged = p.kept + rejected
    losses = ", ".join(f"{name} {count} ({count / judged:.0%})" for name, count in p.rejected.items() if count)
    parts = (
        f"{duration(p.seconds)} kept {p.kept}/{p.target} ({p.kept / p.target:.0%}) {p.rows_per_second:.1f}/s "
        f"left {duration(p.seconds_left)} {_cost(p)}",
        f"round {p.round} in_flight {p.in_flight} asked {p.requests} from_store {p.reused} retries {p.retries} "
        f"failed {p.failed}",
        f"rejected {rejected}{f': {losses}' if losses else ''}",
        *p.waiting,
    )
    return " | ".join(parts)


def _cost(p: Progress) -> str:
    """What is paid, and what the whole will have cost at the price of a row so far."""
    paid = money(p.cost_usd)
    if p.seconds_left is None or not p.kept or not p.cost_usd:
        return paid
    return f"{paid} of about {money(float(p.cost_usd) * p.target / p.kept)}"


def duration(seconds: float | None) -> str:
    """`1h02m`, `3m04s`, `5s`; a dash when it is not known."""
    if seconds is None:
        return "–"
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours}h{minutes:02d}m"
    return f"{minutes}m{rest:02d}s" if minutes else f"{rest}s"


def money(usd: float | Decimal) -> str:
    """US dollars with as many digits as a person needs."""
    value = float(usd)
    if value >= 1 or value == 0:
        return f"${value:,.2f}"
    return f"${value:.4f}" if value >= 0.001 else f"${value:.6f}"


def megabytes(size: int) -> str:
    """Bytes with the unit that a person reads."""
    if size >= 1e9:
        return f"{size / 1e9:,.2f} GB"
    return f"{size / 1e6:,.1f} MB" if size >= 1e5 else f"{size / 1e3:,.0f} kB"
