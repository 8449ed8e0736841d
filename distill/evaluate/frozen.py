"""Holdouts are frozen before the first training: a score means nothing when its questions may move afterwards.

    <workspace>/.distill/holdouts.json    file -> versions: digest, number of items, when, and a digest of every item

The first training (or evaluation) of a recipe writes down what its holdout is. From then on the same file has to be the
same: a change is refused and named, or becomes a new version when the user says so. Scores of different versions are
never compared. A file that no recipe names (`distill eval --holdout`) is not looked after.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Callable, Generator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson

from distill.errors import InputError, RunError
from distill.evaluate.holdout import Holdout, Item
from distill.io import digest, loads, write_bytes

__all__ = ["Frozen", "freeze"]


@dataclass(frozen=True, slots=True)
class Frozen:
    """A version of a holdout."""

    version: int
    digest: str
    items: int
    at: str
    """UTC, ISO 8601."""
    new: bool
    """It was written down just now."""


def freeze(
    holdout: Holdout,
    file: Path,
    workspace: Path,
    *,
    new_version: bool = False,
    now: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> Frozen:
    """Write `holdout` down, or make sure that it is what was written down.

    Args:
        file: where the holdout was read.
        new_version: a changed holdout becomes the next version.

    Raises:
        InputError: it has changed; says how.
        RunError: the list of holdouts is damaged.
    """
    place = workspace / ".distill" / "holdouts.json"
    with _locked(place):
        books = _read(place)
        versions: list[dict[str, Any]] = books.setdefault(_key(file, workspace), [])
        if versions and versions[-1]["digest"] == holdout.digest:
            return _frozen(versions[-1], new=False)
        if versions and not new_version:
            raise InputError(
                f"the holdout is not what it was when version {versions[-1]['version']} was frozen on "
                f"{versions[-1]['at'][:10]}: {_changes(versions[-1]['ids'], _ids(holdout))}",
                path=file,
                hint="put it back, or say --new-holdout-version: its scores are then not compared with earlier ones",
            )
        if earlier := next((each for each in versions if each["digest"] == holdout.digest), None):
            versions.remove(earlier)  # an earlier version is taken up again, under its own number
            versions.append(earlier)
        else:
            number = max((each["version"] for each in versions), default=0) + 1
            at = now().strftime("%Y-%m-%dT%H:%M:%SZ")
            found = {"version": number, "digest": holdout.digest, "items": len(holdout.items), "at": at}
            versions.append({**found, "ids": _ids(holdout)})
        write_bytes(place, orjson.dumps(books, option=orjson.OPT_INDENT_2))
        return _frozen(versions[-1], new=True)


def _frozen(entry: dict[str, Any], *, new: bool) -> Frozen:
    return Frozen(entry["version"], entry["digest"], entry["items"], entry["at"], new)


def _ids(holdout: Holdout) -> dict[str, str]:
    """Item -> digest of all of it."""
    return {item.id: digest(_whole(item), size=8) for item in holdout.items}


def _whole(item: Item) -> list[Any]:
    return [item.messages, item.answer, item.leaf, item.kind, item.further]


def _changes(before: dict[str, str], after: dict[str, str]) -> str:
    """What is different, in a few words."""
    changed = [name for name in before if name in after and before[name] != after[name]]
    gone, new = [n for n in before if n not in after], [n for n in after if n not in before]
    parts = [
        f"{len(names)} {what} ({', '.join(names[:3])}{', …' if len(names) > 3 else ''})"
        for what, names in (("changed", changed), ("gone", gone), ("new", new))
        if names
    ]
    return "; ".join(parts) or "the items are in another order"


def _key(file: Path, workspace: Path) -> str:
    whole = file.resolve()
    with contextlib.suppress(ValueError):
        return str(whole.relative_to(workspace.resolve()))
    return str(whole)


def _read(place: Path) -> dict[str, list[dict[str, Any]]]:
    if not place.is_file():
        return {}
    try:
        books: Any = loads(place.read_bytes())
        for versions in books.values():
            _ = [_frozen(entry, new=False) for entry in versions]
    except (ValueError, KeyError, TypeError, AttributeError):
        hint = "put it back from a backup: it says which holdouts are frozen"
        raise RunError(f"{place} is damaged", hint=hint) from None
    return books


@contextlib.contextmanager
def _locked(place: Path) -> Generator[None]:
    place.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(place.with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
