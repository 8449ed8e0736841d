"""`distill unite`: the shards of a run become one run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from distill.cli.console import JsonOption, QuietOption, err, print_json, run_loop, safe
from distill.cli.generate import show_summary

__all__ = ["unite", "unite_runs"]


def unite(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN", help="Run directories of all shards.")],
    out: Annotated[Path, typer.Option("--out", help="Where the united run goes.")],
    recipe: Annotated[
        Path | None, typer.Option("--recipe", help="The recipe file, where it is not where the shards had it.")
    ] = None,
    partial: Annotated[bool, typer.Option("--partial", help="Unite what is there, though shards are missing.")] = False,
    json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Unite the shards of a run (`distill generate --shard`).

    The answers of all shards come into one store, and the whole recipe is replayed from it into --out, with its
    filters across all rows. Exit code 3 where rows are still missing; the command that asks for them is printed.
    """
    raise typer.Exit(unite_runs(runs, out, recipe=recipe, partial=partial, json=json, quiet=quiet))


def unite_runs(runs: list[Path], out: Path, *, recipe: Path | None, partial: bool, json: bool, quiet: bool) -> int:
    """Unite, and say how it ended; returns the exit code."""
    from distill.engine.unite import merge_shards
    from distill.studio.report import write_report

    merged = run_loop(merge_shards(runs, out, recipe=recipe, partial=partial))
    write_report(merged.summary.run)
    if not quiet:
        show_summary(merged.summary)
        for reason, count in merged.lost.items():
            err.print(f"  not taken over from a shard: {count:,} rows,", safe(reason))
        if merged.short:
            err.print(f"  {merged.short:,} rows short of the target; to ask for them:")
            err.print(safe(f"  {merged.fill}"))
    if json:
        print_json(merged.as_json())
    return merged.summary.exit_code
