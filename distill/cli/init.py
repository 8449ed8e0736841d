"""`distill init`: a folder to work in."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from distill.cli.console import JsonOption, out, print_json

__all__ = ["init"]


def init(
    folder: Annotated[Path, typer.Argument(help="Folder to make; what stands in it already is left as it is.")],
    json: JsonOption = False,
) -> None:
    """Make a folder to work in.

    Recipes, taxonomies, prompts, filter chains, training recipes, data, and JSON Schemas for editors.
    """
    from distill.workspace import create

    written = create(folder)
    if json:
        print_json({"workspace": str(folder), "written": [str(path) for path in written]})
        return
    for path in written:
        out.print(f"  {path}")
    out.print(f"next: cd {shlex.quote(str(folder))} && distill check support && distill run support")
