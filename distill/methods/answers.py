"""Where the final answer stands in a chain of thought, by a declared rule; the rest is the chain.

A rule reads the last place where its mark stands, because models quote it before they use it. What is not found
is None: no rule guesses.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import orjson

from distill.io import loads
from distill.methods.numbers import number
from distill.methods.structured import balanced

__all__ = ["RULES", "Extracted", "Rule", "answer_key", "extractor", "same_text"]


@dataclass(frozen=True, slots=True)
class Extracted:
    chain: str | None
    """The text without the final answer; None where nothing else stands in it."""
    answer: str


Rule = Callable[[str], "Extracted | None"]


def extractor(rule: str, *, marker: str = "####", field: str | None = None) -> Rule:
    """The function of a rule of `ReasoningConfig.answer`."""
    if rule == "after":
        return lambda text: _after(text, marker)
    if rule == "json":
        return lambda text: _json(text, field)
    return RULES[rule]


def answer_key(answer: str) -> str:
    """Equal for answers that say the same: as numbers, as JSON, or as normalised text."""
    value = number(answer)
    if value is not None:
        return f"number {value.value}"
    if answer.lstrip()[:1] in ("{", "["):
        try:
            return "json " + orjson.dumps(loads(answer), option=orjson.OPT_SORT_KEYS).decode()
        except (ValueError, TypeError, RecursionError):
            pass
    return f"text {same_text(answer)}"


def same_text(text: str) -> str:
    """Text as the `exact` check compares it: one Unicode form, one case, single spaces, no closing full stop, and no
    quotes or emphasis around it."""
    text = " ".join(unicodedata.normalize("NFKC", text).casefold().split())
    before = None
    while text != before:
        before = text
        text = text.removesuffix(".").strip()
        for mark in ("**", "__", "`", "$", '"', "'"):
            if len(text) > 2 * len(mark) and text.startswith(mark) and text.endswith(mark):
                text = text[len(mark) : -len(mark)].strip()
    return text


# -- rules ---------------------------------------------------------------------------------------------------------

_LABEL = re.compile(
    r"\A(?:(?:so|thus|therefore|hence),?\s+)?(?:the\s+)?(?:final\s+)?answer(?:\s+is)?\s*[:=]?\s+", re.IGNORECASE
)
_TAG = re.compile(r"<answer>(.*?)(?:</answer>|\Z)", re.IGNORECASE | re.DOTALL)


def _last_line(text: str) -> Extracted | None:
    text = text.rstrip()
    start = text.rfind("\n") + 1
    line = text[start:].strip().strip("*").strip()
    return _cut(text, start, len(text), _LABEL.sub("", line).strip("* "))


def _boxed(text: str) -> Extracted | None:
    start = max(text.rfind("\\boxed{"), text.rfind("\\fbox{"))
    if start < 0:
        return None
    inside = text.index("{", start) + 1
    depth, end = 1, inside
    while end < len(text) and depth:
        depth += {"{": 1, "}": -1}.get(text[end], 0)
        end += 1
    if depth:
        return None
    # The box usually ends a sentence; without it the sentence is not worth keeping, unless it is all there is.
    line = text.rfind("\n", 0, start) + 1
    line_end = text.find("\n", end)
    whole = (line, len(text) if line_end < 0 else line_end)
    answer = text[inside : end - 1]
    cut = _cut(text, *whole, answer)
    return cut if cut is None or cut.chain is not None else _cut(text, start, end, answer)


def _tag(text: str) -> Extracted | None:
    last = next(reversed(list(_TAG.finditer(text))), None)
    return None if last is None else _cut(text, last.start(), last.end(), last.group(1))


def _after(text: str, marker: str) -> Extracted | None:
    start = text.rfind(marker)
    if start < 0:
        return None
    rest = start + len(marker)
    rest += len(text[rest:]) - len(text[rest:].lstrip())
    end = text.find("\n", rest)
    end = len(text) if end < 0 else end
    return _cut(text, start, end, text[rest:end])


def _json(text: str, field: str | None) -> Extracted | None:
    found: tuple[int, int, dict[str, Any]] | None = None
    for start, end in balanced(text):
        if end is None or text[start] != "{":
            continue
        try:
            value: Any = loads(text[start:end])
        except (ValueError, RecursionError):
            continue
        found = start, end, cast("dict[str, Any]", value)
    if found is None:
        return None
    start, end, value = found
    if field is None:
        return _cut(text, start, end, text[start:end])
    if field not in value:
        return None
    final = value.pop(field)
    outside = _cut(re.sub(r"```\w*", "", text[:start]) + re.sub(r"```", "", text[end:]), 0, 0, "-")
    inside = "\n".join(member if isinstance(member, str) else _dump(member) for member in value.values())
    chain = "\n".join(part for part in (outside.chain if outside else None, inside) if part)
    answer = (final if isinstance(final, str) else _dump(final)).strip()
    return Extracted(chain or None, answer) if answer else None


def _all(text: str) -> Extracted | None:
    return _cut(text, 0, len(text), text)


RULES: dict[str, Rule] = {"last_line": _last_line, "boxed": _boxed, "tag": _tag, "all": _all}
"""The rules that take no setting."""


def _cut(text: str, start: int, end: int, answer: str) -> Extracted | None:
    answer = answer.strip()
    if not answer:
        return None
    before, after = text[:start].strip(), text[end:].strip()
    return Extracted("\n".join(part for part in (before, after) if part) or None, answer)


def _dump(value: Any) -> str:
    return orjson.dumps(value).decode()
