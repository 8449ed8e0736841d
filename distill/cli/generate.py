"""`distill generate`: run a recipe to its dataset, or continue it."""

from __future__ import annotations

import contextlib
import shlex
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
from distill.cli.progress import duration, megabytes, money, watch
from distill.cli.rehearsal import rehearse
from distill.errors import InputError, RunError, first_of

if TYPE_CHECKING:
    from distill.engine import Run, Summary
    from distill.recipe import HookConfig

__all__ = ["generate", "generate_run", "show_summary"]


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
    shard: Annotated[
        str | None,
        typer.Option(
            "--shard", metavar="I/N", help="Only this part of the plan; `distill unite` puts the N parts together."
        ),
    ] = None,
    metrics: Annotated[
        str | None,
        typer.Option(
            "--metrics",
            metavar="PORT|FILE.prom",
            help="Prometheus metrics: served on this machine (HOST:PORT: elsewhere too), or kept in a file.",
        ),
    ] = None,
    hook: Annotated[
        str | None,
        typer.Option(
            "--hook",
            metavar="COMMAND|URL",
            help="Told how the run ended, in JSON, in place of the recipe's hook.",
        ),
    ] = None,
) -> None:
    """Write a dataset: plan, ask, filter, to the target.

    The same command again continues an unfinished run; nothing paid is paid twice.
    """
    if simulate is not None:
        if run is not None or new or detach or shard is not None or metrics is not None or hook is not None:
            no = "goes with no --run, --new, --detach, --shard, --metrics or --hook: a rehearsal has its own"
            raise InputError(no, field="--simulate")
        rehearsal, more = rehearse(find_recipe(recipe), simulate, quiet=quiet)
        show_summary(rehearsal)
        if json:
            print_json({**rehearsal.as_json(), "rehearsal": more})
        raise typer.Exit(rehearsal.exit_code)
    path = find_recipe(recipe)
    summary = generate_run(path, run=run, new=new, quiet=quiet, detach=detach, metrics=metrics, hook=hook, shard=shard)
    if json:
        print_json(summary.as_json())
    raise typer.Exit(summary.exit_code)


def generate_run(
    path: Path,
    *,
    run: Path | None,
    new: bool,
    quiet: bool,
    detach: bool = False,
    metrics: str | None = None,
    hook: str | None = None,
    shard: str | None = None,
) -> Summary:
    """Drive a run from the terminal and say how it ended; returns its `Summary`."""
    from distill.engine import open_run
    from distill.io.conversion import without_pandas
    from distill.planning import Shard

    without_pandas()
    part = Shard.parse(shard) if shard is not None else None
    told = _hook(hook) if hook is not None else None
    session = open_run(path, run=run, new=new, detach=detach, hook=told, shard=part)
    mask(session.secrets)
    done = session.finished()
    if done is None:
        told = session.prepared.recipe.hook
        if told is not None and told.command and not quiet:  # a recipe from elsewhere names a program
            err.print("when it ends, this runs:", safe(shlex.join(told.command)))
        try:
            done = run_loop(_drive(session, quiet=quiet, metrics=metrics), drain=session.drain)
        except RunError as error:
            if session.summary is not None:  # rows so far are on disk, and their report with them
                error.details = session.summary.as_json()
                show_summary(session.summary)
            raise
    show_summary(done)
    return done


async def _drive(session: Run, *, quiet: bool, metrics: str | None) -> Summary:
    """The session with those who watch it, then its report, then its hook, which may want the report."""
    from distill.engine import exposed
    from distill.studio.report import write_report

    try:
        async with contextlib.AsyncExitStack() as watchers:
            if metrics is not None:
                err.print("metrics:", await watchers.enter_async_context(exposed(session.exposition, metrics)))
            await watchers.enter_async_context(watch(session.progress, quiet=quiet))
            summary = await session.execute()
        write_report(session.directory.path)
    except Exception as caught:
        group = isinstance(caught, ExceptionGroup)
        error = first_of(caught) if group else caught  # pyright: ignore[reportUnknownArgumentType]
        if not isinstance(error, Exception) or isinstance(error, InputError):
            raise  # left at once, or nothing began
        if session.summary is not None:
            with contextlib.suppress(OSError):
                write_report(session.directory.path)
        _warn(await session.notify(error))
        raise
    _warn(await session.notify())
    return summary


def _hook(given: str) -> HookConfig:
    """What `--hook` means: an address, or a command line without a shell."""
    from distill.recipe import HookConfig, parse

    if given.startswith(("http://", "https://")):
        return parse(HookConfig, {"webhook": given})
    try:
        return parse(HookConfig, {"command": shlex.split(given)})
    except ValueError as error:
        raise InputError(f"not a command line: {error}", field="--hook") from None


def _warn(warnings: list[str]) -> None:
    for warning in warnings:
        err.print(Text("warning: ", style="yellow") + safe(warning))


def show_summary(summary: Summary) -> None:
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
    store = f" ({megabytes(summary.store_bytes)})" if summary.store_bytes else ""
    asked = f"{summary.requests} requests, {summary.resumed_answers} from the store{store}"
    err.print(f"planned {counts['planned']} = {fates}")
    err.print(f"  {money(summary.cost_usd)}   {duration(summary.seconds)}   {asked}")
    if summary.unknown_cost_usd:
        err.print(f"  and at most {money(summary.unknown_cost_usd)} that may have been billed: nobody said how much")
    for name, teacher in summary.teachers.items():
        if teacher.get("parked"):
            times = "once" if teacher["parked"] == 1 else f"{teacher['parked']} times"
            moved = f", {teacher['moved']} of its slots went to others" if teacher.get("moved") else ""
            state = f"; {teacher['state']}" if teacher.get("state") else ""
            err.print(safe(f"  {name} was parked {times}, for {duration(teacher['parked_s'])}{moved}{state}"))
    for name, reasons in counts["rejected"].items():
        err.print(f"  rejected by {name}: " + ", ".join(f"{reason} {count}" for reason, count in reasons.items()))
    if counts["failed"]:
        err.print("  failed: " + ", ".join(f"{name} {count}" for name, count in counts["failed"].items()))
    for leaf, missing in list(summary.short.items())[:20]:
        err.print(f"  short of {missing}:", safe(leaf))
    err.print(f"  {summary.run}")
