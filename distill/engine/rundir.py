"""The run directory: found or made, locked by one writer, described by `run.json`.

The same command continues the run it belongs to: the newest one of this recipe whose inputs are the same. Changed
inputs (recipe, taxonomy, prompts, chain, seeds) start the next run; what was paid is in the store either way.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from distill.assets import workspace_of
from distill.engine.lock import run_lock
from distill.errors import InputError
from distill.io import write_bytes
from distill.recipe import suggest

__all__ = ["RunDir", "find_named_run", "find_run", "list_runs"]


@dataclass(frozen=True, slots=True)
class RunDir:
    """Paths inside one run directory."""

    path: Path

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def rows(self) -> Path:
        return self.path / "rows.parquet"

    @property
    def rejected(self) -> Path:
        return self.path / "rejected.parquet"

    @property
    def failed(self) -> Path:
        return self.path / "failed.parquet"

    @property
    def dataset(self) -> Path:
        return self.path / "dataset"

    @property
    def metrics(self) -> Path:
        return self.path / "metrics.json"

    @property
    def decontamination(self) -> Path:
        return self.path / "decontamination.json"

    @property
    def diversity(self) -> Path:
        return self.path / "diversity.html"

    @property
    def index(self) -> Path:
        return self.path / "index"

    @property
    def log(self) -> Path:
        return self.path / "log.jsonl"

    @property
    def report(self) -> Path:
        return self.path / "report.html"

    def describe(self) -> dict[str, Any] | None:
        """`run.json`, or None when there is none.

        Raises:
            InputError: the file is not ours or damaged.
        """
        file = self.path / "run.json"
        try:
            value = orjson.loads(file.read_bytes())
        except FileNotFoundError:
            return None
        except OSError as error:
            raise InputError(
                f"cannot be read: {error.strerror}", path=file, hint="name another run directory"
            ) from None
        except orjson.JSONDecodeError as error:
            raise InputError(f"cannot be read: {error}", path=file, hint="name another run directory") from None
        if not isinstance(value, dict) or "inputs" not in value:
            raise InputError("not a run of distill", path=file, hint="name another run directory")
        return value  # pyright: ignore[reportUnknownVariableType]

    def whole(self) -> bool:
        """Whether everything that a session writes at its end is still here."""
        files = (self.rows, self.rejected, self.failed, self.metrics, self.dataset / "README.md")
        return all(file.is_file() for file in files)

    def refuse_foreign(self) -> None:
        """Before a run begins here: nothing that it would replace may stand here already.

        Raises:
            InputError: a file or folder of that name is here, and no run.
        """
        for path in (self.rows, self.rejected, self.failed, self.dataset, self.metrics, self.report):
            if path.exists():
                raise InputError(
                    f"holds {path.name}, but no run.json: not a run of distill",
                    path=self.path,
                    hint="name another run directory",
                )

    def write(self, description: dict[str, Any]) -> None:
        """Replace `run.json`."""
        write_bytes(self.path / "run.json", orjson.dumps(description, option=orjson.OPT_INDENT_2))

    def forget(self) -> None:
        """Take the directory back when no run began in it (a key was missing): the next one gets its number."""
        if {path.name for path in self.path.iterdir()} <= {".lock", self.log.name}:
            for path in (self.log, self.path / ".lock"):
                path.unlink(missing_ok=True)
            self.path.rmdir()

    @contextlib.contextmanager
    def lock(self) -> Generator[str]:
        """Hold the run for this process. Yields who held it before and ended without a word, or nothing.

        Raises:
            RunLocked: another process holds it; says which.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        with run_lock(self.path / ".lock") as before:
            yield before


def list_runs(workspace: Path) -> list[RunDir]:
    """Runs of a workspace, oldest first within a recipe."""
    folder = workspace / "runs"
    found = [RunDir(path) for path in folder.iterdir() if (path / "run.json").is_file()] if folder.is_dir() else []
    return sorted(found, key=lambda run: (_split(run.name)[0], _split(run.name)[1]))


def find_named_run(name: str, *, workspace: Path | None = None) -> Path:
    """The directory that a person means: a path, or a name under the workspace's `runs/`.

    Raises:
        InputError: there is no such run.
    """
    runs = (workspace or workspace_of(Path.cwd())) / "runs"
    for folder in (Path(name), runs / name):
        if (folder / "run.json").is_file():
            return folder
    hint = suggest(name, [run.name for run in list_runs(runs.parent)])
    raise InputError(f"no such run: {name}", hint=f"{hint}; looked here and in {runs}")


def find_run(workspace: Path, recipe_name: str, inputs: str, *, new: bool = False) -> RunDir:
    """The run that a command belongs to: the newest of the recipe with the same inputs, else the next number.

    A run whose `run.json` cannot be read belongs to nobody; a directory in which no run came to begin (a key was
    missing, say) is taken again.
    """
    runs = [run for run in list_runs(workspace) if _split(run.name)[0] == recipe_name]
    if not new:
        for run in reversed(runs):
            with contextlib.suppress(InputError):
                description = run.describe()
                if description is not None and description["inputs"] == inputs:
                    return run
    folder = workspace / "runs"
    paths = [path for path in folder.iterdir() if not _never_begun(path)] if folder.is_dir() else []
    taken = [number for name, number in map(_split, (path.name for path in paths)) if name == recipe_name]
    return RunDir(folder / f"{recipe_name}-{max(taken, default=0) + 1}")


def _never_begun(path: Path) -> bool:
    return path.is_dir() and all(entry.name in (".lock", "log.jsonl") for entry in path.iterdir())


def _split(name: str) -> tuple[str, int]:
    match = re.fullmatch(r"(.*)-(\d+)", name)
    return (match.group(1), int(match.group(2))) if match else (name, 0)
