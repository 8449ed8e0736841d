"""Files that are whole or absent.

A file is written beside its target, flushed to disk, then renamed over it (`os.replace` is atomic within one
file system); the folder is flushed too, so that the new name survives a power loss. The temporary name starts
with a dot and holds the process id: what a killed process leaves behind is recognisable and harmless.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Generator
from pathlib import Path

__all__ = ["atomic_path", "write_bytes", "write_text"]


@contextlib.contextmanager
def atomic_path(target: Path) -> Generator[Path]:
    """Yield a temporary path to write; on a clean exit it replaces `target`, on an error it is removed."""
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        _flush(temporary)
        os.replace(temporary, target)
        _flush(target.parent)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_bytes(target: Path, data: bytes) -> None:
    """Write `data` to `target`, atomically and durably."""
    with atomic_path(target) as temporary:
        temporary.write_bytes(data)


def write_text(target: Path, text: str) -> None:
    """Write `text` to `target` as UTF-8 with its newlines unchanged, atomically and durably."""
    write_bytes(target, text.encode("utf-8"))


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
