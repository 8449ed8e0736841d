"""Log-probabilities of an answer's tokens, as OpenAI-compatible servers give them with the text.

They are kept only where their tokens spell the answer's text exactly: a server that counts its reasoning along, or
drops tokens, speaks of another text. A token that is no whole character is written as OpenAI
writes it, `bytes:\\xe2\\x80`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

__all__ = ["TokenLogprob", "logprobs_of_chat"]

_BYTES = re.compile(r"bytes:((?:\\x[0-9a-f]{2})+)")


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """One token of an answer: its text, its log-probability, and the best tokens at its place."""

    token: str
    logprob: float
    top: tuple[tuple[str, float], ...] = ()


def logprobs_of_chat(choice: Mapping[str, Any], text: str) -> tuple[TokenLogprob, ...] | None:
    """The tokens of a choice of a chat completion; None where there are none, or not those of `text`."""
    given = choice.get("logprobs")
    content = cast("dict[str, Any]", given).get("content") if isinstance(given, dict) else None
    if not isinstance(content, list) or not content:
        return None
    found: list[TokenLogprob] = []
    spelled, wanted = b"", text.encode()
    for item in cast("list[Any]", content):
        read = _token(item)
        if read is None:
            return None
        raw, log = read
        # What follows the text is the end of the turn, which some servers count along.
        if len(spelled) >= len(wanted) and raw:
            break
        spelled += raw
        best = cast("dict[str, Any]", item).get("top_logprobs")
        others = [_token(other) for other in cast("list[Any]", best)] if isinstance(best, list) else []
        found.append(TokenLogprob(_text(raw), log, tuple((_text(other[0]), other[1]) for other in others if other)))
    return tuple(found) if spelled == wanted else None


def _token(item: Any) -> tuple[bytes, float] | None:
    """(its bytes, its log-probability) of one entry."""
    if not isinstance(item, dict):
        return None
    entry = cast("dict[str, Any]", item)
    token, log, raw = entry.get("token"), entry.get("logprob"), entry.get("bytes")
    if isinstance(log, bool) or not isinstance(log, (int, float)) or math.isnan(log):
        return None
    log = max(min(float(log), 0.0), -9999.0)  # the value OpenAI gives for "not among the best"
    if isinstance(raw, list) and all(isinstance(byte, int) and 0 <= byte < 256 for byte in cast("list[Any]", raw)):
        return bytes(cast("list[int]", raw)), log
    if not isinstance(token, str):
        return None
    match = _BYTES.fullmatch(token)
    if match:
        return bytes.fromhex(match.group(1).replace("\\x", "")), log
    try:
        return token.encode(), log
    except UnicodeEncodeError:
        return None


def _text(raw: bytes) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in raw)
