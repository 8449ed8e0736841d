"""`distill generate`: run a recipe to its dataset, or continue it."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from distill.cli.console import (
    JsonOption,
    NewOption,
    QuietOption,
    RecipeArgument,
    RunOption,
    err,
    find_recipe,
    print_json,
    run_loop,
    safe,
)
from distill.cli.logs import mask
from distill.cli.progress import duration, money, watch
from distill.cli.rehearsal import rehearse
from distill.errors import InputError, RunError

if TYPE_CHECKING:
    from distill.engine import Summary

__all__ = ["generate", "generate_run"]


def generate(
    recipe: RecipeArgument,
    run: RunOption = None,
    new: NewOption = False,
    json: JsonOption = False,
    quiet: QuietOption = False,
    detach: Annotated[
        bool, typer.Option("--detach", help="Leave as soon as everything waits for batches (exit code 3).")
    ] = False,
    simulate: Annotated[
        str | None,
        typer.Option(
            "--simulate",
            metavar="PLAN",
            help="Rehearse offline in a folder of its own: latency=2s,rpm=500,p429=0.02,crash=3",
        ),
    ] = None,
) -> None:
    """Write a dataset: plan, ask, filter, to the target.

    The same command again continues an unfinished run; nothing paid is paid twice.
    """
    if simulate is not None:
        if run is not None or new or detach:
            raise InputError("goes with no --run, --new or --detach: a rehearsal has its own", field="--simulate")
        rehearsal, more = rehearse(find_recipe(recipe), simulate, quiet=quiet)
        _show(rehearsal)
        if json:
            print_json({**rehearsal.as_json(), "rehearsal": more})
        raise typer.Exit(rehearsal.exit_code)
    summary = generate_run(find_recipe(recipe), run=run, new=new, quiet=quiet, detach=detach)
    if json:
        print_json(summary.as_json())
    raise typer.Exit(summary.exit_code)


def generate_run(path: Path, *, run: Path | None, new: bool, quiet: bool, detach: bool = False) -> Summary:
    """Drive a run from the terminal and say how it ended; returns its `Summary`."""
    from distill.engine import open_run
    from distill.studio.report import write_report

    session = open_run(path, run=run, new=new, detach=detach)
    mask(session.secrets)
    done = session.finished()
    if done is None:

        async def work() -> Summary:
            async with watch(session.progress, quiet=quiet):
                return await session.execute()

        try:
            done = run_loop(work(), drain=session.drain)
        except RunError as error:
            if session.summary is not None:  # rows so far are on disk, and their report with them
                error.details = session.summary.as_json()
                _show(session.summary)
                with contextlib.suppress(OSError):
                    write_report(session.directory.path)
            raise
        write_report(session.directory.path)
    _show(done)
    return done


def _show(summary: Summary) -> None:
    counts = summary.counts
    if summary.already_complete:
        err.print(f"already complete: {counts['kept']} rows in {summary.run}")
        return
    colour = {"complete": "green", "short": "yellow", "stopped": "yellow"}.get(summary.state, "red")
    # Why a run failed is said by its error.
    err.print(Text(summary.state, style=colour), safe(summary.reason if summary.state != "failed" else ""))
    if summary.simulated:
        err.print(Text("simulated", style="yellow"), "rows: they come from the offline rehearsal, not from a model")
    rejected = sum(sum(reasons.values()) for reasons in counts["rejected"].values())
    failed = sum(counts["failed"].values())
    fates = f"kept {counts['kept']} + rejected {rejected} + failed {failed} + pending {counts['pending']}"
    asked = f"{summary.requests} requests, {summary.resumed_answers} from the store"
    err.print(f"planned {counts['planned']} = {fates}")
    err.print(f"  {money(summary.cost_usd)}   {duration(summary.seconds)}   {asked}")
    for name, reasons in counts["rejected"].items():
        err.print(f"  rejected by {name}: " + ", ".join(f"{reason} {count}" for reason, count in reasons.items()))
    if counts["failed"]:
        err.print("  failed: " + ", ".join(f"{name} {count}" for name, count in counts["failed"].items()))
    for leaf, missing in list(summary.short.items())[:20]:
        err.print(f"  short of {missing}:", safe(leaf))
    err.print(f"  {summary.run}")
