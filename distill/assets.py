"""Where a named file of a workspace is found.

A recipe names things in two ways: by path (relative to the recipe's folder, else to the workspace), or by bare
name (`default` for `filters/default.yaml`). The workspace comes first, then what the package ships, then the
checkout the package was installed from.
"""

from __future__ import annotations

from pathlib import Path

from distill.errors import InputError

__all__ = ["KINDS", "find", "search_path", "shipped", "workspace_of"]

KINDS: dict[str, tuple[str, ...]] = {
    "recipes": (".yaml", ".yml"),
    "taxonomies": (".yaml", ".yml"),
    "prompts": (".j2",),
    "filters": (".yaml", ".yml"),
    "train": (".yaml", ".yml"),
    "data": (".jsonl", ".json", ".parquet", ".csv", ".yaml", ".md"),
}
"""Asset folder -> the endings tried when a name comes without one."""

_PACKAGE = Path(__file__).parent / "_assets"
_CHECKOUT = Path(__file__).parent.parent
_MARKS = (".distill", "recipes", "taxonomies", "prompts")


def workspace_of(start: Path) -> Path:
    """The workspace that holds `start`: the nearest folder upwards with a `.distill` folder, or with `recipes`
    beside `taxonomies` or `prompts`; else the folder itself. The answer store stands there."""
    folder = start if start.is_dir() else start.parent
    folder = folder.resolve()
    for candidate in (folder, *folder.parents):
        if (candidate / ".distill").is_dir():
            return candidate
        if sum((candidate / mark).is_dir() for mark in _MARKS[1:]) >= 2:
            return candidate
    return folder


def search_path(kind: str, *, base: Path | None = None) -> list[Path]:
    """The folders in which an asset of `kind` is looked for, first match wins."""
    roots = [base, workspace_of(base)] if base is not None else [workspace_of(Path.cwd())]
    # Installed from a checkout in editable mode there is no `_assets` folder: the checkout is the package's own.
    roots += [_PACKAGE] if _PACKAGE.is_dir() else [_CHECKOUT]
    return [folder for root in dict.fromkeys(roots) for folder in (root / kind, root)]


def shipped(kind: str) -> Path:
    """The folder of `kind` that came with the package."""
    return (_PACKAGE if _PACKAGE.is_dir() else _CHECKOUT) / kind


def find(kind: str, name: str, *, base: Path | None = None) -> Path:
    """The file that `name` means.

    Args:
        kind: one of `KINDS`.
        name: a path, or a name with or without its ending.
        base: the folder of the file that names it (a recipe's folder).

    Raises:
        InputError: there is none; lists the nearest names and where they were looked for.
    """
    given = Path(name).expanduser()
    endings = ("", *KINDS[kind])
    folders = [Path("/")] if given.is_absolute() else search_path(kind, base=base)
    for folder in folders:
        # A bare name means a file of its kind's folder: `support` in recipes/support.yaml is not that file itself.
        bare = len(given.parts) == 1 and folder.name != kind
        for ending in endings[:1] if bare else endings:
            candidate = folder / f"{given}{ending}"
            if candidate.is_file():
                return candidate
    raise InputError(f"no such file in {kind}: {name}", hint=_nearest(kind, given, folders))


def _nearest(kind: str, given: Path, folders: list[Path]) -> str:
    import difflib

    names = {
        str(file.relative_to(folder))
        for folder in folders
        if folder.name == kind and folder.is_dir()
        for file in folder.rglob("*")
        if file.suffix in KINDS[kind]
    }
    close = difflib.get_close_matches(str(given), sorted(names), n=3, cutoff=0.4)
    looked = ", ".join(str(folder) for folder in folders if folder.is_dir())
    return (f"did you mean {', '.join(close)}? " if close else "") + f"looked in {looked}"
