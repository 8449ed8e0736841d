"""What the operating system's refusals mean for a user: a full disk, a folder that cannot be written."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from distill.errors import InputError, RunError

__all__ = ["disk_error", "require_folder"]

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_DENIED = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})


def disk_error(error: OSError, path: Path | str | None = None) -> RunError:
    """The error that a user meets; `path` is named where the system names none."""
    where = error.filename if isinstance(error.filename, str) else path
    place = f": {where}" if where is not None else ""
    if error.errno in _FULL:
        return RunError(
            f"the disk is full{place}", hint="Make room and run the same command again; nothing paid is lost."
        )
    said = error.strerror or str(error)
    if error.errno in _DENIED:
        return RunError(f"no permission to write{place} ({said})", hint="Name a folder that you can write to.")
    return RunError(f"a file cannot be used{place} ({said})", hint="Check the path and the disk, then run it again.")


def require_folder(folder: Path, *, field: str = "--out") -> None:
    """Make sure that `folder` is one, or can be made, and that it can be written: before hours of work, not after.

    Raises:
        InputError: it is not.
    """
    for place in (folder.absolute(), *folder.absolute().parents):
        if not os.path.lexists(place):
            continue
        if not place.is_dir():
            raise InputError("is a file, not a folder", path=place, field=field, hint="name another folder")
        if not os.access(place, os.W_OK | os.X_OK):
            raise InputError("no permission to write", path=place, field=field, hint="name a folder you can write to")
        return
