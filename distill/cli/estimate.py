"""`distill estimate`: what a run will cost and yield, from a small pilot."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table
from rich.text import Text

from distill.cli.console import JsonOption, RecipeArgument, out, print_json, run_loop, safe
from distill.cli.loading import load
from distill.cli.progress import duration

if TYPE_CHECKING:
    from distill.engine.estimate import Estimate
    from distill.engine.estimate_model import Interval

__all__ = ["estimate"]


def estimate(
    recipe: RecipeArgument,
    count: Annotated[int, typer.Option("-n", "--count", min=5, max=2000, help="Slots of the pilot.")] = 60,
    json: JsonOption = False,
) -> None:
    """Ask a small pilot and say what the whole run will cost, take and yield.

    The pilot's slots are the run's first ones and its answers are kept: the run does not pay for them again. Intervals
    hold in at least 80 of 100 cases.
    """
    from distill.engine import prepare
    from distill.engine.estimate import estimate as estimated

    found = run_loop(estimated(prepare(load(recipe)), count))
    if json:
        print_json(found.as_json())
        return
    _show(found)


def _show(found: Estimate) -> None:
    if found.simulated:
        out.print(Text("simulated", style="yellow"), "teachers: an offline rehearsal, no real answers")
    paid = "" if found.pilot_usd is None else f", {float(found.pilot_usd):.4f} USD paid"
    out.print(f"pilot: {found.pilot_slots} slots, {found.pilot_kept} rows kept{paid}; the run uses its answers")
    out.print("")
    out.print(f"the run, for {found.target:,} rows (in brackets: at least 80 of 100 cases)")
    if found.cost_usd is not None and found.per_accepted_usd is not None:
        out.print(f"  cost      {_money(found.cost_usd)}")
        out.print(f"  per row   {_money(found.per_accepted_usd)} for each accepted row")
    else:
        out.print("  cost      not known: a teacher has no price")
    out.print(f"  accepted  {_number(found.accepted)}; the target is reached in {found.complete:.0%} of the cases")
    out.print(f"  slots     {_number(found.slots)} in {_number(found.rounds)} rounds")
    if found.seconds is not None:
        span = f"{duration(found.seconds.mid)} [{duration(found.seconds.low)} – {duration(found.seconds.high)}]"
        out.print(f"  time      {span}")
    out.print("  limit     ", safe(found.bound_by))
    out.print("")
    spending = Table(box=None, pad_edge=False)
    for name in ("teacher", "step", "requests", "input", "output", "reasoning", "cached", "USD"):
        spending.add_column(name, justify="left" if name in ("teacher", "step") else "right")
    for each in found.spending:
        spending.add_row(
            safe(f"{each.teacher} ({each.model})"),
            each.step,
            *(f"{part.mid:,.0f}" for part in (each.requests, each.input, each.output, each.reasoning, each.cached)),
            "?" if each.cost_usd is None else _money(each.cost_usd, unit=False),
        )
    out.print(spending)
    for title, shares in (("kept, by leaf", found.leaves), ("lost, by filter and failure", found.losses)):
        if shares:
            out.print("")
            out.print(title)
        for name, share in shares.items():
            span = f"[{share.share.low:.0%} – {share.share.high:.0%}]"
            out.print(f"  {share.seen} of {share.of} {span} ", safe(name))
    if found.alternatives:
        out.print("")
        out.print("other ways")
    for other in found.alternatives:
        cost = "?" if other.cost_usd is None else _money(other.cost_usd)
        row = "?" if other.per_accepted_usd is None else _money(other.per_accepted_usd)
        time = "" if other.seconds is None else f", {duration(other.seconds.mid)}"
        out.print(f"  {cost} ", safe(f"{other.name}: {other.note}"))
        out.print(f"    {row} for each of {_number(other.accepted)} rows, {_number(other.rounds)} rounds{time}")


def _money(value: Interval, *, unit: bool = True) -> str:
    digits = 2 if value.high >= 10 else 4 if value.high >= 0.01 else 8
    span = f"{value.mid:,.{digits}f} [{value.low:,.{digits}f} – {value.high:,.{digits}f}]"
    return f"{span} USD" if unit else span


def _number(value: Interval) -> str:
    if round(value.low) == round(value.high):
        return f"{value.mid:,.0f}"
    return f"{value.mid:,.0f} [{value.low:,.0f} – {value.high:,.0f}]"
