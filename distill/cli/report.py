"""`distill report`: write a run's report.html again."""

from __future__ import annotations

from typing import Annotated

import typer

from distill.cli.console import JsonOption, out, print_json

__all__ = ["report"]


def report(
    run: Annotated[str, typer.Argument(help="A run directory, or the name of one under runs/.")],
    json: JsonOption = False,
) -> None:
    """Write a run's report.html again, from its files."""
    from distill.engine.rundir import find_named_run
    from distill.studio.report import write_report

    path = write_report(find_named_run(run))
    if json:
        print_json({"report": str(path)})
    else:
        out.print(str(path))
