"""`distill init`: a folder to work in."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from distill.cli.console import out

__all__ = ["init"]


def init(
    folder: Annotated[Path, typer.Argument(help="Folder to make; what stands in it already is left as it is.")],
) -> None:
    """Make a folder to work in.

    Recipes, taxonomies, prompts, filter chains, training recipes, data, and JSON Schemas for editors.
    """
    from distill.workspace import create

    for path in create(folder):
        out.print(f"  {path}")
    out.print(f"next: cd {shlex.quote(str(folder))} && distill check support && distill run support")
