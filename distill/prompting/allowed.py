"""What a prompt may do with a value: the allow-lists of filters and tests, each with its bounds.

None of them reaches an attribute, formats by a pattern, or makes more than `MAX_TEXT` characters or `MAX_ITEMS`
items out of little.
"""

# Values of templates have no static type.
# pyright: reportUnknownVariableType=false, reportUnknownArgumentType=false, reportUnknownLambdaType=false
# pyright: reportUnknownMemberType=false

from __future__ import annotations

import json
import textwrap
from collections.abc import Callable, Iterable, Mapping
from typing import Any, cast

from jinja2 import Undefined, pass_environment
from jinja2.exceptions import SecurityError
from jinja2.sandbox import SandboxedEnvironment
from jinja2.tests import TESTS as _JINJA_TESTS

__all__ = ["FILTERS", "MAX_ITEMS", "MAX_TEXT", "TESTS", "bounded", "checked_items", "joined", "printable"]

MAX_TEXT = 4_000_000
"""Characters of a rendered prompt, and of any text made on the way."""
MAX_ITEMS = 10_000
"""Items of a list made in a prompt, nested ones counted; and turns of all loops of one rendering together."""


def bounded(text: str) -> str:
    """The text, if it is not too long."""
    if len(text) > MAX_TEXT:
        raise SecurityError(f"makes a text of more than {MAX_TEXT:,} characters")
    return text


def printable(value: Any) -> str:
    """A value as text. Lists and objects have no one text: a prompt says how they are to look."""
    if isinstance(value, str):
        return value
    if isinstance(value, (bool, int, float)):
        return str(value)
    if isinstance(value, Undefined):
        return str(value)  # raises: undefined values are strict
    if value is None:
        raise TypeError("the value is empty (null); test it with `is none`, or give it a `default`")
    if isinstance(value, (list, tuple, Mapping)):
        raise TypeError("a list or mapping has no one text: use `join` or `tojson`")
    raise TypeError("this has no text of its own: name one of its fields, for instance `.text` or `.name`")


def joined(values: Iterable[Any], separator: Any = "") -> str:
    """Texts, one after the other."""
    between = printable(separator)
    size, parts = 0, []
    for value in values:
        part = value if isinstance(value, str) else printable(value)
        size += len(part) + len(between)
        if size > MAX_TEXT:
            bounded(" " * (MAX_TEXT + 1))
        parts.append(part)
    return between.join(parts)


def checked_items(value: Any) -> Any:
    """A list or mapping made in a template, if it is small, nested ones counted: lists of lists of the same list
    grow without bound in a few lines."""
    left = MAX_ITEMS
    open_: list[Any] = [value]
    while open_:
        here = open_.pop()
        if isinstance(here, Mapping):
            inner: Iterable[Any] = here.values()
        elif isinstance(here, (list, tuple)):
            inner = here
        else:
            continue
        left -= len(here)
        if left < 0:
            raise SecurityError(f"makes a list of more than {MAX_ITEMS:,} items")
        open_.extend(item for item in inner if isinstance(item, (list, tuple, Mapping)))
    return value


def _join(values: Any, separator: Any = "") -> str:
    return joined(_items(values), separator)


def _tojson(value: Any, indent: int | None = None) -> str:
    """JSON as it is written by hand: not escaped for HTML, letters of all scripts as they are."""
    if isinstance(value, Undefined):
        str(value)
    if indent is not None and not 0 <= indent <= 8:
        raise ValueError("indent: 0 to 8")
    checked_items(value)
    return bounded(json.dumps(value, ensure_ascii=False, allow_nan=False, indent=indent, default=_plain))


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return dict(cast("Mapping[str, Any]", value))
    if isinstance(value, Undefined):
        str(value)
    raise TypeError("this is not JSON: name one of its fields, for instance `.text`")


def _replace(value: Any, old: Any, new: Any, count: int = -1) -> str:
    text, before, after = printable(value), printable(old), printable(new)
    times = text.count(before) if count < 0 else min(count, text.count(before))
    if len(text) + times * (len(after) - len(before)) > MAX_TEXT:
        raise SecurityError(f"makes a text of more than {MAX_TEXT:,} characters")
    return text.replace(before, after, count)


def _truncate(value: Any, length: int = 255, end: str = "…") -> str:
    """At most `length` characters, cut between words."""
    text = printable(value)
    if len(text) <= length:
        return text
    cut = text[: max(0, length - len(end))]
    head, space, _ = cut.rpartition(" ")
    return (head if space else cut).rstrip() + end


def _indent(value: Any, width: int = 4, first: bool = False) -> str:
    if not 0 <= width <= 64:
        raise ValueError("width: 0 to 64")
    text = printable(value)
    bounded(" " * min(MAX_TEXT + 1, len(text) + width * text.count("\n")))
    shifted = textwrap.indent(text, " " * width)
    return shifted if first else shifted[width:] if text and not text[0].isspace() else shifted.lstrip(" ")


def _items(value: Any) -> Iterable[Any]:
    if isinstance(value, Undefined):
        str(value)
    if isinstance(value, (list, tuple, Mapping)) or type(value) in _VIEWS:
        return value
    raise TypeError(f"needs a list, not {type(value).__name__}")


_VIEWS = (type({}.keys()), type({}.values()), type({}.items()))


def _default(value: Any, fallback: Any = "", boolean: bool = False) -> Any:
    """The value, or `fallback` where there is none (or, with `boolean`, an empty one)."""
    if isinstance(value, Undefined) or (boolean and not value):
        return fallback
    return value


def _edge(position: int) -> Callable[[Any], Any]:
    def take(value: Any) -> Any:
        items = value if isinstance(value, str) else list(_items(value))
        if not items:
            raise ValueError("the list is empty")
        return items[position]

    return take


def _unique(value: Any) -> list[Any]:
    kept: dict[Any, None] = dict.fromkeys(_items(value))
    return list(kept)


@pass_environment
def _map(environment: SandboxedEnvironment, values: Any, attribute: str) -> list[Any]:
    """One field of every item: `seeds | map(attribute="text")`."""
    return [environment.getattr(value, attribute) for value in _items(values)]


def _int(value: Any, fallback: int = 0) -> int:
    text = value if isinstance(value, (int, float)) else printable(value)
    if isinstance(text, str) and len(text) > 40:
        return fallback
    try:
        return int(text)
    except (ValueError, OverflowError):
        return fallback


def _float(value: Any, fallback: float = 0.0) -> float:
    try:
        return float(value if isinstance(value, (int, float)) else printable(value)[:400])
    except (ValueError, OverflowError):
        return fallback


def _length(value: Any) -> int:
    return len(value) if isinstance(value, str) else len(list(_items(value)))


def _text(change: Callable[[str], str]) -> Callable[[Any], str]:
    return lambda value: bounded(change(printable(value)))


FILTERS: dict[str, Callable[..., Any]] = {
    "abs": abs,
    "capitalize": _text(str.capitalize),
    "count": _length,
    "d": _default,
    "default": _default,
    "first": _edge(0),
    "float": _float,
    "indent": _indent,
    "int": _int,
    "items": lambda value: list(value.items()) if isinstance(value, Mapping) else list(_items(value)),
    "join": _join,
    "last": _edge(-1),
    "length": _length,
    "list": lambda value: list(_items(value)),
    "lower": _text(str.lower),
    "map": _map,
    "max": lambda value: max(_items(value)),
    "min": lambda value: min(_items(value)),
    "replace": _replace,
    "reverse": lambda value: list(_items(value))[::-1],
    "round": lambda value, precision=0: round(value, precision) if precision else round(value),
    "sort": lambda value, reverse=False: sorted(_items(value), reverse=bool(reverse)),
    "string": printable,
    "title": _text(str.title),
    "tojson": _tojson,
    "trim": _text(str.strip),
    "truncate": _truncate,
    "unique": _unique,
    "upper": _text(str.upper),
    "wordcount": lambda value: len(printable(value).split()),
}
"""Name -> function."""

TESTS: dict[str, Callable[..., Any]] = {
    name: test
    for name, test in _JINJA_TESTS.items()
    if name
    in {
        *("defined", "undefined", "none", "string", "number", "integer", "float", "boolean", "true", "false"),
        *("mapping", "sequence", "in", "eq", "==", "equalto", "ne", "!=", "lt", "<", "lessthan", "le", "<="),
        *("gt", ">", "greaterthan", "ge", ">=", "odd", "even", "divisibleby"),
    }
}
"""Name -> function; Jinja's own, which look at a value and nothing else."""
