"""Releases like software versions: plain files under `<workspace>/releases/`, one folder a version.

    releases/NAME/3/            a version: release.json, README.md (its card), the weights, serve/
    releases/NAME/current.json  which version is promoted, and every promotion before it
    releases/.lock              held while anything here is written

A version is made beside its place and renamed into it, so it is there whole or not at all, and is never changed
afterwards. Two writers take turns; the kernel drops the lock with the process that held it, however it ended.
"""

from __future__ import annotations

import contextlib
import difflib
import fcntl
import os
import re
import shutil
from collections.abc import Callable, Generator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson
from pydantic import ValidationError

from distill.errors import InputError
from distill.io import loads, write_bytes
from distill.release.record import Release, file_digest

__all__ = ["Listed", "Registry"]

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")


@dataclass(frozen=True, slots=True)
class Listed:
    """A version as `list` shows it."""

    release: Release
    folder: Path
    promoted: bool


@dataclass(frozen=True)
class Registry:
    """The releases of a workspace."""

    root: Path
    now: Callable[[], datetime] = lambda: datetime.now(UTC)

    def list(self, name: str | None = None) -> list[Listed]:
        """Every version, oldest first within a name."""
        found: list[Listed] = []
        names = [name] if name is not None else self.names()
        for each in names:
            promoted = self.promoted(each)
            for version in self._versions(each):
                folder = self.root / each / str(version)
                found.append(Listed(_read(folder), folder, version == promoted))
        return found

    def names(self) -> list[str]:
        if not self.root.is_dir():
            return []
        return sorted(path.name for path in self.root.iterdir() if path.is_dir() and _NAME.fullmatch(path.name))

    def find(self, reference: str) -> Listed:
        """The version that `NAME@VERSION` means; `NAME` alone: the promoted one, else the latest.

        Raises:
            InputError: there is none; names the nearest.
        """
        name, at, number = reference.partition("@")
        versions = self._versions(name) if _NAME.fullmatch(name) else []
        if not versions:
            close = difflib.get_close_matches(name, self.names(), n=1, cutoff=0.4)
            hint = f"did you mean {close[0]}?" if close else "`distill releases list` shows them"
            raise InputError(f"no such release: {reference}", hint=hint)
        promoted = self.promoted(name)
        version = promoted if promoted is not None else versions[-1]
        if at:
            if not number.isdigit() or int(number) not in versions:
                known = ", ".join(map(str, versions))
                raise InputError(f"no such version: {reference}", hint=f"{name} has: {known}")
            version = int(number)
        folder = self.root / name / str(version)
        return Listed(_read(folder), folder, version == promoted)

    def add(self, name: str, make: Callable[[int, str, Path], Release]) -> Listed:
        """Make the next version of `name`.

        Args:
            make: given the version, the time and an empty folder, fills the folder and says what the release is.

        Raises:
            InputError: the name is not one.
        """
        if not _NAME.fullmatch(name):
            raise InputError("a name is lower-case letters, digits, dot, dash or underscore", field=name)
        with self._locked():
            version = max(self._versions(name), default=0) + 1
            place = self.root / name / str(version)
            fresh = self.root / name / f".{version}.{os.getpid()}.tmp"
            shutil.rmtree(fresh, ignore_errors=True)
            fresh.mkdir(parents=True)
            try:
                release = make(version, self.now().strftime("%Y-%m-%dT%H:%M:%SZ"), fresh)
                _write(fresh / "release.json", release.model_dump(mode="json"))
                fresh.rename(place)
            finally:
                shutil.rmtree(fresh, ignore_errors=True)
        return Listed(release, place, False)

    def promoted(self, name: str) -> int | None:
        """The version that `NAME` alone means."""
        return self._current(name).get("version")

    def history(self, name: str) -> list[dict[str, Any]]:
        """Every promotion and rollback, oldest first."""
        return list(self._current(name).get("history", []))

    def promote(self, reference: str, *, force: bool = False) -> Listed:
        """Make a version the one that its name means.

        Raises:
            InputError: there is no such version, or it is unproven and `force` is not given.
        """
        listed = self.find(reference)
        release = listed.release
        if release.unproven is not None and not force:
            raise InputError(
                f"{release.title} is unproven: {release.unproven}", hint="--force promotes it all the same"
            )
        with self._locked():
            self._set(release.name, release.version, "promote", forced=release.unproven is not None)
        return Listed(release, listed.folder, True)

    def rollback(self, name: str) -> Listed:
        """Go back to the version that was promoted before the present one; again goes one further back.

        Raises:
            InputError: there is none before it.
        """
        with self._locked():
            stack: list[int] = []
            for event in self.history(name):
                if event["action"] == "rollback":
                    stack.pop()
                elif not stack or stack[-1] != event["version"]:
                    stack.append(int(event["version"]))
            if len(stack) < 2:
                raise InputError(f"{name} has no earlier promoted version", hint="`distill releases list` shows all")
            self._set(name, stack[-2], "rollback", forced=False)
        return self.find(name)

    def verify(self, listed: Listed) -> None:
        """Check that the weights are still those that were released.

        Raises:
            InputError: they are missing or changed.
        """
        weights = listed.folder / listed.release.weights
        if not weights.exists() or file_digest(weights) != listed.release.weights_digest:
            raise InputError("the weights are not those that were released", path=weights)

    def _current(self, name: str) -> dict[str, Any]:
        try:
            return loads((self.root / name / "current.json").read_bytes())
        except FileNotFoundError:
            return {}

    def _set(self, name: str, version: int, action: str, *, forced: bool) -> None:
        event = {"action": action, "version": version, "at": self.now().strftime("%Y-%m-%dT%H:%M:%SZ")}
        if forced:
            event["forced"] = True
        _write(self.root / name / "current.json", {"version": version, "history": [*self.history(name), event]})

    def _versions(self, name: str) -> list[int]:
        folder = self.root / name
        if not folder.is_dir():
            return []
        return sorted(int(path.name) for path in folder.iterdir() if path.name.isdigit())

    @contextlib.contextmanager
    def _locked(self) -> Generator[None]:
        self.root.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self.root / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)


def _read(folder: Path) -> Release:
    file = folder / "release.json"
    try:
        return Release.model_validate(loads(file.read_bytes()))
    except (OSError, ValueError, ValidationError):
        raise InputError("not a release", path=file) from None


def _write(file: Path, value: Any) -> None:
    write_bytes(file, orjson.dumps(value, option=orjson.OPT_INDENT_2))
