"""A workspace: the folders a user edits. `create` lays one out from what the package ships."""

from __future__ import annotations

from pathlib import Path

from distill.assets import shipped
from distill.errors import InputError
from distill.io import write_bytes

__all__ = ["create"]

_FOLDERS = ("recipes", "taxonomies", "prompts", "filters", "train", "data")


def create(folder: Path) -> list[Path]:
    """Copy the shipped assets into `folder`; files that exist are not touched. Returns what was written.

    Raises:
        InputError: `folder` is a file.
    """
    if folder.exists() and not folder.is_dir():
        raise InputError("is a file", path=folder, hint="name a folder")
    written: list[Path] = []
    for name in _FOLDERS:
        root = shipped(name)
        for source in sorted(path for path in root.rglob("*") if path.is_file()):
            target = folder / name / source.relative_to(root)
            if not target.exists():
                write_bytes(target, source.read_bytes())
                written.append(target)
    (folder / ".distill").mkdir(parents=True, exist_ok=True)
    ignore = folder / ".gitignore"
    if not ignore.exists():
        write_bytes(ignore, b".distill/\nruns/\n")
        written.append(ignore)
    return written
