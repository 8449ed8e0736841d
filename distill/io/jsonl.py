"""JSON Lines: read with line numbers, written so that every reader sees the same lines.

Only the line feed ends a line. (`str.splitlines` also splits on U+2028 and others, which are ordinary
characters inside a JSON string.)
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import orjson

from distill.errors import InputError
from distill.io.atomic import atomic_path
from distill.io.strict import loads

__all__ = ["read_jsonl", "write_jsonl"]

_FORM = "JSON Lines: one object a line, without commas between them and without a list around them"


def read_jsonl(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield (line number from 1, object) for every line that is not blank.

    Raises:
        InputError: the file cannot be read, or a line is not one strict JSON object; names file and line.
    """
    try:
        file = path.open("rb")
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror}", path=path) from None
    with file:
        for number, line in enumerate(file, start=1):
            if number == 1:
                line = line.removeprefix(b"\xef\xbb\xbf")
            if not line.strip():
                continue
            try:
                value = loads(line)
            except UnicodeDecodeError as error:
                raise InputError(f"not UTF-8 (byte {error.start + 1} of the line)", path=path, line=number) from None
            except ValueError as error:
                raise InputError(f"not valid JSON: {error}", path=path, line=number, hint=_FORM) from None
            if not isinstance(value, dict):
                raise InputError("not a JSON object", path=path, line=number, hint=_FORM)
            yield number, value


def write_jsonl(path: Path, rows: Iterable[dict[str, Any]]) -> int:
    """Write one object a line, atomically; returns the number of lines."""
    count = 0
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        for row in rows:
            file.write(orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE))
            count += 1
    return count
