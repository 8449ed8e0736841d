"""`distill runs`: the runs of a workspace, and how each stands."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from distill.cli.console import JsonOption, out, print_json, safe
from distill.cli.progress import megabytes, money
from distill.errors import InputError

__all__ = ["runs"]


def runs(
    workspace: Annotated[Path | None, typer.Option(help="Workspace; left out, the one around this folder.")] = None,
    json: JsonOption = False,
) -> None:
    """List runs: state, rows, cost."""
    from distill.assets import workspace_of
    from distill.engine.overview import overview, store_of

    if workspace is not None and not workspace.is_dir():
        raise InputError("no such folder", path=workspace)
    root = workspace or workspace_of(Path.cwd())
    lines, (store, size) = overview(root), store_of(root)
    if json:
        print_json({"workspace": str(root), "runs": lines, "store": {"path": store, "bytes": size}})
        return
    table = Table("run", "state", "kept", "target", "cost", box=None)
    for line in lines:
        kept, target, cost = (line[name] for name in ("kept", "target", "cost_usd"))
        table.add_row(
            safe(line["run"]),
            safe(line["state"]),
            "–" if kept is None else f"{kept:,}",
            "–" if target is None else f"{target:,}",
            "–" if cost is None else money(cost),
        )
    if lines:
        out.print(table)
    else:
        out.print(f"no runs in {root}")
    if size is None:
        out.print(safe(f"answers: {store}"))
    elif size:
        out.print(safe(f"answers: {megabytes(size)} in {store}"))
