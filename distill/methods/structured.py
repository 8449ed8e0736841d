"""From a teacher's text to a JSON value that satisfies a schema, or a reason why not.

Models wrap JSON in fences, put a sentence before it, or forget a bracket. Four readings are tried, the most
faithful first: the whole text as strict JSON; a fenced block; the first balanced value in the prose; and last
the `json-repair` library. Two things are never repaired, because a repair would choose for the teacher: a key
that stands twice, and NaN or an infinity.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, cast

from distill.errors import UnreadableText
from distill.io import canonical, loads
from distill.methods.validation import compile_schema

__all__ = ["Parsed", "Structure", "Unstructured", "balanced", "parse"]

How = Literal["strict", "extracted", "repaired"]


class Unstructured(ValueError):
    """The text does not hold what was asked for. The message is fit to be shown to the teacher."""


@dataclass(frozen=True, slots=True)
class Parsed:
    """A value and the JSON text that says it: the teacher's own characters, unless `how` is `repaired`."""

    value: Any
    text: str
    how: How


class Structure:
    """A schema compiled once, and the reading of texts against it. Without a schema any JSON value is right.

    Args:
        name: the schema's file, for messages.

    Raises:
        InputError: the schema itself is wrong; says where.
    """

    def __init__(self, schema: Mapping[str, Any] | None = None, *, name: str = "schema") -> None:
        self.schema = schema
        self._validator = compile_schema(schema, name) if schema is not None else None

    def parse(self, text: str) -> Parsed:
        """The first reading of `text` that satisfies the schema.

        Raises:
            Unstructured: there is none; says what is wrong with the best one.
        """
        best: Unstructured | None = None
        sound: set[str] = set()
        for candidate, how in _candidates(text):
            if how == "repaired" and candidate in sound:
                continue  # JSON already, with the wrong content: no repair of its form helps
            try:
                value = _repair(candidate) if how == "repaired" else _strict(candidate)
                sound.add(candidate)
                self._check(value)
                return Parsed(value, canonical(value).decode() if how == "repaired" else candidate.strip(), how)
            except _Final as problem:
                raise Unstructured(str(problem)) from None
            except _Invalid as problem:
                best = problem if not isinstance(best, _Invalid) else best
                if how == "strict":
                    break
            except (Unstructured, UnreadableText) as problem:
                best = best or Unstructured(str(problem))
        raise Unstructured(str(best))

    def error(self, value: Any) -> str | None:
        """Where and how `value` breaks the schema, or None."""
        if self._validator is None:
            return None
        problem = next(iter(self._validator.iter_errors(value)), None)
        if problem is None:
            return None
        message = (
            problem.message if len(problem.message) <= 300 else f"{problem.message[:200]} … {problem.message[-90:]}"
        )
        return f"{problem.json_path}: {message}"

    def _check(self, value: Any) -> None:
        problem = self.error(value)
        if problem is not None:
            raise _Invalid(problem)


def parse(text: str, schema: Mapping[str, Any] | None = None) -> Parsed:
    """`Structure(schema).parse(text)`, for a single text."""
    return Structure(schema).parse(text)


# -- readings ------------------------------------------------------------------------------------------------------


class _Final(Unstructured):
    """Refused for good: no further reading is tried."""


class _Invalid(Unstructured):
    """JSON, but not what the schema says."""


_FENCE = re.compile(r"```[ \t]*[\w+-]*[ \t]*\r?\n(.*?)```", re.DOTALL)
_OPEN_FENCE = re.compile(r"\A\s*```[ \t]*[\w+-]*[ \t]*\r?\n")
_NOT_A_NUMBER = re.compile(r"[\[:,]\s*[+-]?(?:NaN|Infinity|inf)\b", re.IGNORECASE)


def _candidates(text: str) -> Iterator[tuple[str, How]]:
    yield text, "strict"
    fenced = [match.group(1) for match in _FENCE.finditer(text)]
    for block in fenced:
        yield block, "extracted"
    spans = list(balanced(text))
    for start, end in spans:
        if end is not None:
            yield text[start:end], "extracted"
    for block in fenced:
        if block.lstrip()[:1] in ("{", "["):
            yield block.strip(), "repaired"
    for start, end in spans:
        yield text[start:end], "repaired"


def _strict(text: str) -> Any:
    try:
        return loads(text)
    except RecursionError:
        raise _Final("the JSON is nested too deeply") from None
    except ValueError as problem:
        if "stands twice" in str(problem):
            raise _Final(str(problem)) from None
        if _OPEN_FENCE.match(text) or text.lstrip()[:1] not in ("{", "["):
            raise Unstructured("there is no JSON value in the text") from None
        if _NOT_A_NUMBER.search(text) and _is_loose_json(text):
            raise _Final("NaN and infinities are not JSON") from None
        raise Unstructured(f"not valid JSON: {problem}") from None


def _is_loose_json(text: str) -> bool:
    """Whether NaN or an infinity is the only thing wrong with it, so that the word is not part of a string."""
    import json

    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def _repair(text: str) -> Any:
    import json_repair

    if _NOT_A_NUMBER.search(text):
        raise _Final("NaN and infinities are not JSON")
    try:
        value: Any = json_repair.repair_json(text, return_objects=True, skip_json_loads=True)
    except (ValueError, RecursionError):
        raise Unstructured("not valid JSON, and beyond repair") from None
    # The library answers any text with something: what it makes up of nothing is not the teacher's.
    if not value or not isinstance(value, dict if text.lstrip().startswith("{") else list):
        raise Unstructured("not valid JSON, and beyond repair")
    value = cast("dict[str, Any] | list[Any]", value)
    for key, count in _keys(value).items():
        if len(re.findall(rf"""[{{,]\s*["']?{re.escape(key)}["']?\s*:""", text)) > count:
            raise _Final(f"not valid JSON, and the key {key!r} stands twice")
    return value


def _keys(value: Any) -> dict[str, int]:
    counts: dict[str, int] = {}
    stack: list[Any] = [value]
    while stack:
        here = stack.pop()
        if isinstance(here, dict):
            for key, child in cast("dict[str, Any]", here).items():
                counts[key] = counts.get(key, 0) + 1
                stack.append(child)
        elif isinstance(here, list):
            stack.extend(cast("list[Any]", here))
    return counts


_MARKS = re.compile(r'\\.|["{}\[\]]', re.DOTALL)


def balanced(text: str) -> Iterator[tuple[int, int | None]]:
    """(start, end) of every outermost `{…}` or `[…]` in `text`, quotes respected; (start, None) for one that never
    closes, which ends the search: what stands inside a broken value must not pass for the value."""
    depth, start, quoted = 0, 0, False
    for match in _MARKS.finditer(text):
        mark = match.group()
        if depth and mark == '"':
            quoted = not quoted
        elif quoted or mark[0] in '\\"':
            continue
        elif mark in "{[":
            if depth == 0:
                start = match.start()
            depth += 1
        elif depth:
            depth -= 1
            if depth == 0:
                yield start, match.end()
    if depth:
        yield start, None
