"""`distill releases`: versions of students, each with its proof."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from distill.cli.console import JsonOption, err, out, print_json, safe

if TYPE_CHECKING:
    from distill.release import Listed, Registry

__all__ = ["app", "open_registry"]

app = typer.Typer(help="Versions of students, each with its proof.", no_args_is_help=True)

_Reference = Annotated[str, typer.Argument(help="NAME@VERSION; NAME alone: the promoted version, else the latest.")]
_ForceOption = Annotated[bool, typer.Option("--force", help="Although it is unproven.")]


def open_registry() -> Registry:
    """The registry of the workspace this command runs in."""
    from distill.assets import workspace_of
    from distill.release import Registry

    return Registry(workspace_of(Path.cwd()) / "releases")


@app.command()
def add(
    name: Annotated[str, typer.Argument(help="The release's name; its next version is made.")],
    weights: Annotated[Path, typer.Option("--weights", help="Adapter, model or training folder, or a .gguf file.")],
    base: Annotated[
        str | None, typer.Option("--base", help="Catalogue name or folder of the base; of a .gguf file: its model.")
    ] = None,
    scorecard: Annotated[
        Path | None, typer.Option("--eval", help="Scorecard of these weights (`distill eval --out`).")
    ] = None,
    gate: Annotated[list[str] | None, typer.Option("--gate", help="Further condition on the scorecard.")] = None,
    run: Annotated[Path | None, typer.Option("--run", help="The run that made the rows.")] = None,
    training: Annotated[Path | None, typer.Option("--training", help="The training's --out, if elsewhere.")] = None,
    note: Annotated[str, typer.Option("--note", help="A line for the card.")] = "",
    force: _ForceOption = False,
    json: JsonOption = False,
) -> None:
    """Add a version: weights, record, scorecard, card, serve files.

    Without a scorecard whose gates hold it needs --force, and is marked as unproven for good.
    """
    from distill.release.make import add_release

    listed = add_release(
        open_registry(),
        name,
        weights,
        base=base,
        scorecard=scorecard,
        gates=gate or (),
        run=run,
        training=training,
        note=note,
        force=force,
    )
    err.print(safe(f"{listed.release.title}: {listed.folder}"))
    if listed.release.unproven is not None:
        err.print(Text("unproven: ", style="yellow") + safe(listed.release.unproven))
    if json:
        print_json(_as_json(listed))


@app.command("list")
def list_(name: Annotated[str | None, typer.Argument(help="Only this one.")] = None, json: JsonOption = False) -> None:
    """List the versions; the promoted one of a name is marked."""
    found = open_registry().list(name)
    if json:
        print_json({"releases": [_as_json(listed) for listed in found]})
        return
    table = Table("release", "", "kind", "base", "score", "proof", "made", box=None)
    for listed in found:
        release = listed.release
        metrics = release.score.metrics if release.score is not None else {}
        score = ", ".join(f"{metric} {figure['value']:.3f}" for metric, figure in list(metrics.items())[:2])
        proof = Text("proven", style="green") if release.unproven is None else Text("UNPROVEN", style="yellow")
        kind = release.quantisation or release.kind
        mark = "promoted" if listed.promoted else ""
        table.add_row(release.title, mark, kind, release.base, score, proof, release.created[:10])
    out.print(table)


@app.command()
def show(reference: _Reference, json: JsonOption = False) -> None:
    """Show a version's record, and whether its weights are still those that were released."""
    registry = open_registry()
    listed = registry.find(reference)
    registry.verify(listed)
    if json:
        print_json({**_as_json(listed), "history": registry.history(listed.release.name)})
        return
    out.print(safe((listed.folder / "README.md").read_text("utf-8")))
    out.print(safe(str(listed.folder)))


@app.command()
def diff(before: _Reference, after: _Reference, json: JsonOption = False) -> None:
    """Show what changed between two versions: data, settings, scores."""
    from distill.release.differ import differences

    registry = open_registry()
    first, second = registry.find(before).release, registry.find(after).release
    changes = differences(first, second)
    if json:
        rows = [{name: getattr(c, name) for name in ("section", "key", "before", "after", "note")} for c in changes]
        print_json({"before": first.title, "after": second.title, "changes": rows})
        return
    table = Table("", "", first.title, second.title, "", box=None)
    for c in changes:
        cells = (safe(str(value), limit=60) if value is not None else Text("–") for value in (c.before, c.after))
        table.add_row(c.section, c.key, *cells, c.note)
    out.print(table if changes else "no difference")


@app.command()
def promote(reference: _Reference, force: _ForceOption = False, json: JsonOption = False) -> None:
    """Make a version the one that its name means."""
    _report(open_registry().promote(reference, force=force), json=json)


@app.command()
def rollback(
    name: Annotated[str, typer.Argument(help="A release's name.")],
    json: JsonOption = False,
) -> None:
    """Go back to the version that was promoted before."""
    _report(open_registry().rollback(name), json=json)


def _report(listed: Listed, *, json: bool) -> None:
    err.print(safe(f"{listed.release.name} is now {listed.release.title}"))
    if json:
        print_json(_as_json(listed))


def _as_json(listed: Listed) -> dict[str, Any]:
    release = listed.release.model_dump(mode="json")
    return {
        "release": listed.release.title,
        "path": str(listed.folder),
        "weights_path": str(listed.folder / listed.release.weights),
        "promoted": listed.promoted,
        "proven": listed.release.unproven is None,
        **release,
    }
