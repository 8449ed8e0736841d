"""JSON that reads back exactly, and the digests that stand on it.

The standard parser takes three things that JSON forbids or that lose data: NaN and infinities, duplicate keys
(the last wins in silence), and lone surrogates, which no UTF-8 file can hold. `loads` refuses all three.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

import orjson

from distill.errors import UnreadableText

__all__ = ["canonical", "check_text", "digest", "loads"]


def canonical(value: Any) -> bytes:
    """One byte string per value: sorted keys, no spaces, UTF-8.

    Raises:
        UnreadableText: the value holds a lone surrogate or is not JSON.
    """
    try:
        return orjson.dumps(value, option=orjson.OPT_SORT_KEYS)
    except (TypeError, ValueError) as error:
        raise UnreadableText(f"cannot be written as JSON: {error}") from None


def digest(value: Any, *, size: int = 16) -> str:
    """Hex digest (BLAKE2b, `size` bytes) of `value`: of bytes as they are, of anything else in canonical JSON."""
    data = value if isinstance(value, bytes) else canonical(value)
    return hashlib.blake2b(data, digest_size=size).hexdigest()


def loads(text: str | bytes) -> Any:
    """Parse JSON strictly.

    Raises:
        ValueError: not JSON, or NaN, an infinity, a duplicate key, or a lone surrogate stands in it.
    """
    if isinstance(text, bytes):
        text = text.decode("utf-8")
    # orjson is strict about NaN and surrogates, and fast; it says nothing of duplicate keys, which the
    # standard parser lets us see.
    orjson.loads(text.encode("utf-8", "surrogatepass"))
    return json.loads(text, object_pairs_hook=_unique)


def check_text(text: str) -> None:
    """Raise `UnreadableText` when `text` cannot be encoded as UTF-8."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise UnreadableText(f"lone surrogate {text[error.start]!a} at character {error.start}") from None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    seen = dict(pairs)
    if len(seen) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the key {twice!r} stands twice in one object")
    return seen
