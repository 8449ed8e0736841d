"""What is wrong with a file, in the words of the person who wrote it: one line a problem, `file:line: field: what`.

pydantic reports where a value failed in the model: tags of unions and names of variants stand in that path, and
the field a person mistyped has no line of its own. Here the path is followed through the model and the file
together, so that only what stands in the file is shown.
"""

from __future__ import annotations

import difflib
import re
import types
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Union, cast, get_args, get_origin

from pydantic import BaseModel, Tag, ValidationError

from distill.errors import InputError
from distill.io.yamlfile import Lines

__all__ = ["Problem", "nearest", "problems_of", "report", "suggest"]

_SECRET = frozenset({"api_key", "headers"})
"""Fields whose values are never repeated in a message."""


Problem = tuple[Sequence[str | int], str]
"""The keys of the value that is wrong, and what is wrong with it."""


def report(problems: Iterable[Problem], *, path: Path | str | None, lines: Lines) -> InputError:
    """One error for all problems: `file:line: field: message`, one a line, in the order of the file."""
    placed: list[tuple[int, str]] = []
    for keys, message in problems:
        line = _line(lines, keys)
        where = ":".join(str(part) for part in (path, line) if part is not None)
        field = ".".join(str(key) for key in keys)
        placed.append((line or 0, ": ".join(part for part in (where, field, message) if part)))
    lines_of_text = [text for _, text in sorted(dict.fromkeys(placed), key=lambda item: item[0])]
    error = InputError("\n".join(lines_of_text))
    if len(lines_of_text) == 1:
        error.path, error.line = path, placed[0][0] or None
    return error


def problems_of(model: Any, error: ValidationError) -> list[Problem]:
    """What pydantic found, by the keys of the file."""
    # A list whose members are wrong is counted as empty too: that is no problem of its own.
    items = error.errors()
    within = {item["loc"][:-1] for item in items}
    return [
        _problem(model, cast("Mapping[str, Any]", item))
        for item in items
        if item["type"] != "too_short" or item["loc"] not in within
    ]


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name that `name` was most likely meant to be."""
    names = list(known)
    lower = {candidate.lower(): candidate for candidate in names}
    close = difflib.get_close_matches(name.lower(), lower, n=1, cutoff=0.5)
    return lower[close[0]] if close else None


def suggest(name: str, known: Iterable[str]) -> str:
    """`did you mean x?`, or what there is."""
    names = list(known)
    close = nearest(name, names)
    if close is not None:
        return f"did you mean {close}?"
    return f"there are: {', '.join(names)}" if names else "there are none"


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a pydantic path ends: the keys that stand in the file, the model that holds the last key, and the
    annotation of the value there."""

    keys: tuple[str | int, ...]
    owner: Any
    annotation: Any


def _problem(model: Any, item: Mapping[str, Any]) -> Problem:
    end = _follow(model, item["loc"])
    keys = end.keys
    message = _message(item, end)
    if item["loc"] and item["loc"][-1] == "[key]":
        message = f"the name {message}"
    if item["type"] == "value_error":
        # A check over several fields names the field it is about: `field: what`.
        named, _, rest = message.partition(": ")
        inner = tuple(named.split("."))
        if rest and re.fullmatch(r"[\w.]+", named):
            keys, message = (*keys, *inner), rest
    return keys, message


def _message(item: Mapping[str, Any], end: _Place) -> str:
    kind: str = item["type"]
    text: str = item["msg"].removeprefix("Value error, ").replace("Input should be", "should be")
    context: Mapping[str, Any] = item.get("ctx", {})
    value = item.get("input")
    match kind:
        case "extra_forbidden":
            return f"no such field; {suggest(str(end.keys[-1]), _names(end.owner))}"
        case "missing":
            return "this field is needed"
        case "union_tag_not_found":
            return f"needs `kind`: {', '.join(_tags(end.annotation))}"
        case "union_tag_invalid" | "literal_error":
            names = re.findall(r"'([^']*)'", str(context.get("expected_tags") or context.get("expected", "")))
            given = context.get("tag", value)
            close = nearest(str(given), names)
            there = ", ".join(names)
            meant = f"did you mean {close}? (there are: {there})" if close else f"there are: {there}"
            return f"no such {'kind' if 'tag' in context else 'value'}: {given!r}; {meant}"
        case "model_type" | "model_attributes_type" | "dict_type":
            names = _names(_optional(end.annotation))
            meant = nearest(str(end.keys[-1]), _names(end.owner)) if _takes_names(end.owner) and end.keys else None
            return (
                "should be a mapping"
                + (f" of: {', '.join(names)}" if names else "")
                + _given(value, end)
                + (f"; did you mean {meant}?" if meant else "")
            )
        case "tuple_type" | "list_type":
            return "should be a list" + _given(value, end)
        case "string_type":
            quotes = "; write it in quotes" if isinstance(value, (bool, int, float)) else ""
            return "should be text" + _given(value, end) + quotes
        case "too_short":
            return "should hold at least one"
        case "decimal_type":
            return "should be a number" + _given(value, end)
        case "value_error":
            return text
        case _:
            return text.split(", unable to parse")[0] + _given(value, end)


def _given(value: Any, end: _Place) -> str:
    if value is None:
        return ", and is empty"
    if not isinstance(value, (str, int, float)) or _SECRET.intersection(str(key) for key in end.keys):
        return ""
    shown = repr(value) if not isinstance(value, bool) else str(value).lower()
    return f", not {shown}" if len(shown) <= 60 else ""


def _line(lines: Lines, keys: Sequence[str | int]) -> int | None:
    for length in range(len(keys), -1, -1):
        # YAML keys are text in `lines`, whatever they were read as.
        for key in (tuple(keys[:length]), tuple(k if isinstance(k, str) else str(k) for k in keys[:length])):
            if key in lines:
                return lines[key]
    return None


def _follow(model: Any, loc: tuple[str | int, ...]) -> _Place:
    keys: list[str | int] = []
    owner: Any = None
    annotation: Any = model
    for part in loc:
        if part == "[key]":
            continue
        annotation = _optional(annotation)
        if _is_model(annotation):
            keys.append(part)
            owner, annotation = annotation, _field(annotation, str(part))
        elif _is_union(annotation):
            annotation = next((m for m in get_args(annotation) if str(part) in _tags(m)), None)
        elif get_origin(annotation) in (dict, Mapping):
            keys.append(part)
            owner, annotation = annotation, get_args(annotation)[1]
        elif get_origin(annotation) in (list, tuple) and isinstance(part, int):
            keys.append(part)
            owner, annotation = annotation, get_args(annotation)[0]
        else:
            keys.append(part)
            owner, annotation = annotation, None
    return _Place(tuple(keys), owner, _optional(annotation))


def _field(model: type[BaseModel], name: str) -> Any:
    for field, info in model.model_fields.items():
        if name in (field, info.alias):
            return info.annotation
    return getattr(model, "FURTHER", None)


def _takes_names(model: Any) -> bool:
    return _is_model(model) and getattr(model, "FURTHER", None) is not None


def _names(model: Any) -> list[str]:
    if not _is_model(model):
        return []
    return [info.alias or name for name, info in model.model_fields.items()]


def _tags(annotation: Any) -> list[str]:
    """Tags of a variant, or of all variants of a union."""
    if get_origin(annotation) is Annotated:
        inner, *notes = get_args(annotation)
        return [note.tag for note in notes if isinstance(note, Tag)] or _tags(inner)
    if _is_union(annotation):
        return [tag for member in get_args(annotation) for tag in _tags(member)]
    if _is_model(annotation) and "kind" in annotation.model_fields:
        return [str(tag) for tag in get_args(annotation.model_fields["kind"].annotation)]
    return []


def _bare(annotation: Any) -> Any:
    while get_origin(annotation) is Annotated:
        annotation = get_args(annotation)[0]
    return annotation


def _optional(annotation: Any) -> Any:
    """The annotation without notes, and without the `None` of an optional value."""
    annotation = _bare(annotation)
    if _is_union(annotation):
        members = [member for member in get_args(annotation) if member is not type(None)]
        if len(members) == 1:
            return _optional(members[0])
    return annotation


def _is_union(annotation: Any) -> bool:
    return get_origin(annotation) in (Union, types.UnionType)


def _is_model(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)
