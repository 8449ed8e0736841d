"""Where weights lie: one cache for all workspaces of a user.

    <cache>/models/<name>/<file>.gguf | files/…     the checked files
                          checked.json              which hashes they were checked against
                          hf/                       the transformers folder made from a GGUF file
                          .partial/                 an unfinished pull
    <cache>/models/<name>.lock                      held while a pull or a conversion writes

`<cache>` is `$DISTILL_CACHE`, else `$XDG_CACHE_HOME/distill`, else `~/.cache/distill`. Hashing a gigabyte takes
seconds, so files are hashed when they arrive, and recognised later by `checked.json` and their size.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Callable, Generator
from dataclasses import dataclass
from pathlib import Path

import orjson

from distill.errors import InputError, RunError
from distill.io import write_bytes
from distill.models.catalogue import Model, catalogue, entry

__all__ = ["Presence", "cache_root", "home", "is_present", "list_models", "locked", "mark_checked", "path", "target"]


@dataclass(frozen=True, slots=True)
class Presence:
    """A model of the catalogue and what of it lies here."""

    name: str
    model: Model
    present: bool
    path: Path | None
    bytes_on_disk: int
    """All that the model takes here, its transformers folder and unfinished parts included."""


def path(name_or_path: str | Path) -> Path:
    """The GGUF file or the folder that a name of the catalogue, or a path, means.

    Raises:
        InputError: not known, or known and not here yet.
    """
    name = str(name_or_path)
    if name not in catalogue():
        given = Path(name).expanduser()
        if given.is_dir() or (given.is_file() and given.suffix == ".gguf"):
            return given.resolve()
        if os.sep in name or given.exists():
            raise InputError("neither a model folder nor a .gguf file", path=name)
        entry(name)  # raises, with the nearest name
    model = entry(name)
    if not is_present(name, model):
        raise InputError(
            f"the model {name} is not on this machine",
            hint=f"`distill models pull {name}` fetches it ({model.size / 1e6:,.0f} MB)",
        )
    return target(name, model)


def list_models() -> list[Presence]:
    """Every model of the catalogue, in its order."""
    return [_presence(name, model) for name, model in catalogue().items()]


def cache_root() -> Path:
    """The cache folder. It need not exist."""
    if given := os.environ.get("DISTILL_CACHE"):
        return Path(given).expanduser().absolute()
    if given := os.environ.get("XDG_CACHE_HOME"):
        return Path(given).expanduser().absolute() / "distill"
    return Path.home() / ".cache" / "distill"


def home(name: str) -> Path:
    """The folder of one model. It need not exist."""
    return cache_root() / "models" / name


def target(name: str, model: Model) -> Path:
    """Where the checked model lies: a file for `gguf`, else a folder."""
    return home(name) / (model.files[0].name if model.kind == "gguf" else "files")


def is_present(name: str, model: Model) -> bool:
    """True when every file has its size and was checked against the hashes the catalogue gives now."""
    where = target(name, model)
    places = [where] if model.kind == "gguf" else [where / file.name for file in model.files]
    try:
        sizes_fit = all(place.stat().st_size == file.size for place, file in zip(places, model.files, strict=True))
        return sizes_fit and orjson.loads((home(name) / "checked.json").read_bytes()) == _hashes(model)
    except (OSError, ValueError):
        return False


def mark_checked(name: str, model: Model) -> None:
    """Record that the files just arrived and matched."""
    write_bytes(home(name) / "checked.json", orjson.dumps(_hashes(model), option=orjson.OPT_INDENT_2))


@contextlib.contextmanager
def locked(name: str, *, waiting: Callable[[], None] = lambda: None) -> Generator[None]:
    """Hold the model's lock; wait for another process that has it, after calling `waiting` once.

    The kernel drops the lock with the process, however it ends.
    """
    lock = cache_root() / "models" / f"{name}.lock"
    try:
        lock.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise RunError(
            f"the model cache cannot be written: {lock.parent}: {error.strerror}",
            hint="set DISTILL_CACHE to a folder of yours",
        ) from None
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            waiting()
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _hashes(model: Model) -> dict[str, str]:
    return {file.name: file.sha256 for file in model.files}


def _presence(name: str, model: Model) -> Presence:
    present = is_present(name, model)
    size = sum(file.stat().st_size for file in home(name).rglob("*") if file.is_file())
    return Presence(name, model, present, target(name, model) if present else None, size)
