"""`distill models`: the weights that can be had, and where they lie."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn
from rich.table import Table

from distill.cli.console import JsonOption, err, out, print_json

if TYPE_CHECKING:
    from distill.models import Presence

__all__ = ["app"]

app = typer.Typer(help="Embedded models.", no_args_is_help=True)

_Name = Annotated[str, typer.Argument(help="Name of the catalogue.")]


@app.command("list")
def list_(json: JsonOption = False) -> None:
    """List the catalogue, and what of it is here."""
    from distill.models import list_models

    models = list_models()
    if json:
        print_json({"models": [_as_json(item) for item in models]})
        return
    table = Table("name", "size", "licence", "for", "here", box=None)
    for item in models:
        model = item.model
        here = "yes" if item.present else "no"
        table.add_row(item.name, f"{model.size / 1e6:,.0f} MB", model.licence, ", ".join(model.roles), here)
    out.print(table)


@app.command()
def pull(name: _Name, json: JsonOption = False) -> None:
    """Fetch weights and check them.

    Continues where an earlier pull stopped.
    """
    from distill.models import pull as pull_model

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=err, transient=True) as bars:
        task = bars.add_task(name, total=None)

        def progress(what: str, done: int, total: int) -> None:
            bars.update(task, description=f"{name}: {what}", completed=done, total=total)

        path = pull_model(name, progress=progress)
    if json:
        print_json({"name": name, "path": str(path)})
    else:
        out.print(str(path), markup=False)


@app.command()
def path(name: _Name, json: JsonOption = False) -> None:
    """Show where weights lie.

    An error when they are not here.
    """
    from distill.models import path as model_path

    where = model_path(name)
    if json:
        print_json({"name": name, "path": str(where)})
    else:
        out.print(str(where), markup=False)


def _as_json(item: Presence) -> dict[str, Any]:
    model = item.model
    return {
        "name": item.name,
        "present": item.present,
        "path": str(item.path) if item.path is not None else None,
        "bytes_on_disk": item.bytes_on_disk,
        **model.model_dump(mode="json", exclude={"files", "sources"}),
        "size": model.size,
        "files": [file.model_dump(mode="json") for file in model.files],
    }
