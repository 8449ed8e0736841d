"""`log.jsonl`: what happened in a run, one JSON object a line, secrets masked. Appended over all its sessions."""

from __future__ import annotations

import contextlib
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import orjson

from distill.io.redact import Redactor

__all__ = ["RunLog"]


class RunLog:
    """Appends events to a file; each line is flushed, so that `tail -f` shows the run."""

    def __init__(self, path: Path, redactor: Redactor) -> None:
        self._path = path
        self._redactor = redactor
        self._file: BinaryIO | None = None

    def __enter__(self) -> RunLog:
        self._file = self._path.open("ab", buffering=0)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def write(self, event: str, **fields: Any) -> None:
        """Append one event."""
        if self._file is None:
            return
        record = {"time": datetime.now(UTC).isoformat(timespec="milliseconds"), "event": event, **fields}
        line = orjson.dumps(self._redactor.value(record), default=str, option=orjson.OPT_APPEND_NEWLINE)
        # A log that cannot be written must not end a run that still can: the store has its own word on full disks.
        with contextlib.suppress(OSError):
            self._file.write(line)
