"""Rows whose answer stops in the middle.

The finish reason decides where there is one. Else the looks do, and they are conservative: structure that is
visibly open (a code fence, a JSON value), or long prose with sentences that ends without one.
"""

from __future__ import annotations

import re

import pyarrow as pa

from distill.filters.base import Verdicts
from distill.filters.text import Absent, text, texts
from distill.recipe import TruncationStep

__all__ = ["TruncationFilter", "looks_cut"]

_FENCE = re.compile(r"^\s{0,3}(```+|~~~+)", re.MULTILINE)
_CLOSING = {"}": "{", "]": "["}
_SENTENCE_END = re.compile(r"[.!?。！？…][\"'”’)\]]*(?:\s|$)")
_WHOLE_END = re.compile(r"[.!?。！？…:;\"'”’»)\]}>*_`|~$€£%°]$")
_HANGING = re.compile(
    r"(?:,|\b(?:and|or|but|the|an?|of|to|with|for|in|on|at|by|from|because|that|which|is|are))$", re.I
)
_LONG_PROSE = 40  # words under which a missing full stop says nothing
_LONG_LINE = 8  # words under which the last line may be a heading, a signature or an item of a list


class TruncationFilter:
    """Drops a row that was cut: by its finish reason (`finish_length`), or by the looks of its answer (`open_fence`,
    `open_bracket`, `open_quote`, `no_end`). Evidence is the end of the answer."""

    def __init__(self, step: TruncationStep, name: str = "truncation") -> None:
        self.name = name
        self._optional = not step.fields
        self._fields = step.fields or ("response",)

    def judge(self, rows: pa.Table) -> Verdicts:
        verdicts = Verdicts.kept(rows.num_rows)
        try:
            contents = texts(rows, self._fields)
        except Absent:
            if not self._optional:
                raise
            return verdicts
        finishes = _finishes(rows)
        for row, (content, finish) in enumerate(zip(contents, finishes, strict=True)):
            reason = "finish_length" if finish in ("length", "max_tokens") else looks_cut(content)
            if reason is not None:
                verdicts.drop(row, reason, f"ends “{_end(content)}”")
        return verdicts


def looks_cut(content: str) -> str | None:
    """Why the text looks cut, or None."""
    stripped = content.strip()
    if not stripped:
        return None
    if len(_FENCE.findall(stripped)) % 2:
        return "open_fence"
    if stripped[0] in "{[":
        return _open_json(stripped)
    words = stripped.split()
    last_line = stripped.rsplit("\n", 1)[-1]
    # An item of a list, a quotation, an indented line of code.
    if len(words) < _LONG_PROSE or len(last_line.split()) < _LONG_LINE or last_line[0] in "-*|#>+ \t":
        return None
    if _WHOLE_END.search(stripped) or not stripped[-1].isascii():
        return None
    if last_line.count('"') % 2:
        return "open_quote"
    # Casual writers drop the last full stop, not all of them and not in the middle of a clause.
    if len(_SENTENCE_END.findall(stripped)) >= 3 or _HANGING.search(stripped):
        return "no_end"
    return None


def _open_json(content: str) -> str | None:
    """Whether brackets or a string of a JSON-like text stay open. Mismatched ones are wrong, not cut."""
    stack: list[str] = []
    quoted = escaped = False
    for char in content:
        if quoted:
            quoted = escaped or char != '"'
            escaped = char == "\\" and not escaped
        elif char == '"':
            quoted = True
        elif char in "{[":
            stack.append(char)
        elif char in _CLOSING and (not stack or stack.pop() != _CLOSING[char]):
            return None
    if quoted and stack:
        return "open_quote"
    # `[note] plain text` opens and closes; only what never closed counts.
    return "open_bracket" if stack else None


def _finishes(rows: pa.Table) -> list[str | None]:
    for name in ("finish", "finish_reason"):
        if name in rows.column_names:
            try:
                return text(rows, name).to_pylist()
            except Absent:
                continue
    return [None] * rows.num_rows


def _end(content: str, limit: int = 80) -> str:
    line = " ".join(content[-4 * limit :].split())
    return line if len(line) <= limit else "…" + line[-limit + 1 :]
