"""Which text of a row a filter looks at.

`fields` name text columns, or parts of a conversation:

    prompt     the user turns, without the system turn
    response   the assistant turns; the chosen answer where a preference row has one
    messages   the whole conversation, system turn included
    system     the system turns alone

A column of that name comes first; `prompt` and `response` fall back to the usual names of other layouts
(instruction, question, output, answer, …). Conversations may be OpenAI style (`messages` of role and content) or
ShareGPT style (`conversations` of from and value); a turn's content may be a list of parts, of which those that hold
`text` count. Left out, a row's text is its prompt and its response, one below
the other: the system turn is the same in every row and would make them all alike.

Conversations are read from Arrow's own buffers, a column at a time: no Python object is made for a turn that no
filter asks for.
"""

# Arrow's arrays are generic over types that only run time knows.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportUnknownParameterType=false, reportMissingTypeArgument=false
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute
from numpy.typing import NDArray

from distill.errors import InputError
from distill.recipe import suggest

__all__ = ["Absent", "ids", "parts", "present", "sources", "text", "texts"]

pc: Any = pyarrow.compute
_PROMPT = ("prompt", "instruction", "question", "text", "input")
_RESPONSE = ("response", "chosen", "output", "answer", "completion")
_CONVERSATIONS = ("messages", "conversations", "conversation")
_USER = ("user", "human")
_ASSISTANT = ("assistant", "gpt", "model", "bot")
_SYSTEM = ("system", "developer")


class Absent(InputError):
    """The rows have no such text at all."""


@dataclass(frozen=True, slots=True)
class _Turns:
    """A column of conversations, flat: one entry a turn, and how many turns each row has."""

    role: pa.Array
    content: pa.Array
    counts: NDArray[np.int64]
    valid: NDArray[np.bool_]


def texts(rows: pa.Table, fields: Sequence[str] = ()) -> list[str]:
    """One text a row: the named fields, one below the other; missing values are empty text.

    Raises:
        Absent: there is no such column or part.
    """
    columns = [column.to_pylist() for column in (text(rows, field) for field in fields or _whole(rows))]
    filled = [[value or "" for value in column] for column in columns]
    if len(filled) == 1:
        return filled[0]
    return ["\n".join(part for part in row if part) for row in zip(*filled, strict=True)]


def parts(rows: pa.Table, fields: Sequence[str] = ()) -> list[tuple[str, list[str]]]:
    """The same texts one by one: (field, one text a row)."""
    return [(field, [value or "" for value in text(rows, field).to_pylist()]) for field in (fields or _whole(rows))]


def text(rows: pa.Table, field: str) -> pa.StringArray:
    """One field as an Arrow string array; null where a row does not have it.

    Raises:
        Absent: there is no such column or part.
    """
    names = set(rows.column_names)
    if field in _CONVERSATIONS:
        turns = _turns(rows)
        if turns is not None:
            return _join(turns, None)
    if field in names and _is_text(rows.schema.field(field).type):
        return _strings(rows.column(field))
    if field in names and field in ("prompt", "completion", "chosen", "rejected"):
        # Conversational prompt/completion and preference layouts hold lists of turns under these names.
        turns = _turns(rows, field)
        if turns is not None:
            return _join(turns, _USER if field == "prompt" else _ASSISTANT)
    if field in names:
        raise Absent(f"column {field} holds {rows.schema.field(field).type}, not text", field="fields")
    if field == "system":
        turns = _turns(rows)
        if turns is not None:
            return _join(turns, _SYSTEM)
    if field in ("prompt", "response"):
        found = _part(rows, field)
        if found is not None:
            return found
    close = suggest(field, rows.column_names)
    near = f"; {close}" if close.startswith("did") else ""
    hint = f"the rows have: {', '.join(rows.column_names) or 'no columns'}"
    raise Absent(f"no column {field}{near}", field="fields", hint=hint)


def present(rows: pa.Table, fields: Sequence[str] = ()) -> NDArray[np.bool_]:
    """Which rows have every named field (for no fields: any text at all)."""
    valid = [np.asarray(pc.is_valid(text(rows, field))) for field in fields or _whole(rows)]
    return np.logical_and.reduce(valid) if fields else np.logical_or.reduce(valid)


def sources(rows: pa.Table, fields: Sequence[str]) -> list[str]:
    """The columns in which the named fields stand; a part of a conversation stands in the whole conversation.

    Raises:
        Absent: there is no such column or part.
    """
    names, found = rows.column_names, list[str]()
    for field in fields:
        text(rows, field)
        if field in names:
            found.append(field)
        elif (conversation := next((name for name in _CONVERSATIONS if _turns(rows, name)), None)) is not None:
            found += [conversation, *(["chosen"] if field == "response" and "chosen" in names else [])]
        elif field == "prompt" and {"instruction", "input"} <= set(names):
            found += ["instruction", "input"]
        else:
            found.append(next(name for name in (_PROMPT if field == "prompt" else _RESPONSE) if name in names))
    return list(dict.fromkeys(found))


def ids(rows: pa.Table) -> list[str]:
    """Ids of the rows, as text; rows without one are named by their place in the table."""
    if "id" not in rows.column_names:
        return [f"row-{number}" for number in range(1, rows.num_rows + 1)]
    values = rows.column("id").to_pylist()
    return [f"row-{number}" if value is None else str(value) for number, value in enumerate(values, start=1)]


def _whole(rows: pa.Table) -> tuple[str, ...]:
    """The fields that make up a row's text when none are named."""
    found = tuple(field for field in ("prompt", "response") if _has(rows, field))
    if found:
        return found
    columns = tuple(f.name for f in rows.schema if f.name != "id" and _is_text(f.type))
    if not columns:
        raise Absent("the rows have no text column", field="fields", hint=f"columns: {', '.join(rows.column_names)}")
    return columns


def _has(rows: pa.Table, field: str) -> bool:
    try:
        text(rows, field)
    except Absent:
        return False
    return True


def _part(rows: pa.Table, field: str) -> pa.StringArray | None:
    """`prompt` or `response` from a conversation, else from a column that usually holds it."""
    names = set(rows.column_names)
    turns = _turns(rows)
    found = None if turns is None else _join(turns, _USER if field == "prompt" else _ASSISTANT)
    if field == "response" and found is not None and "chosen" in names and _is_text(rows.schema.field("chosen").type):
        # A preference row ends its conversation before the answer; the answer it teaches is the chosen one.
        return pc.coalesce(_strings(rows.column("chosen")), found)
    if found is not None:
        return found
    if field == "prompt" and {"instruction", "input"} <= names:
        both = pc.binary_join_element_wise(
            _strings(rows.column("instruction")), pc.fill_null(_strings(rows.column("input")), ""), "\n"
        )
        return pc.utf8_trim_whitespace(both)
    for name in _PROMPT if field == "prompt" else _RESPONSE:
        if name in names:
            kind = rows.schema.field(name).type
            if _is_text(kind):
                return _strings(rows.column(name))
            turns = _turns(rows, name)
            if turns is not None:
                return _join(turns, _USER if field == "prompt" else _ASSISTANT)
    return None


def _turns(rows: pa.Table, name: str | None = None) -> _Turns | None:
    name = name or next((n for n in _CONVERSATIONS if n in rows.column_names), None)
    if name is None or name not in rows.column_names:
        return None
    kind = rows.schema.field(name).type
    if not (pa.types.is_list(kind) or pa.types.is_large_list(kind)) or not pa.types.is_struct(kind.value_type):
        return None
    members = {kind.value_type.field(i).name: kind.value_type.field(i).type for i in range(kind.value_type.num_fields)}
    role = next((n for n in ("role", "from") if n in members and _is_text(members[n])), None)
    content = next(
        (n for n in ("content", "value") if n in members and (_is_text(members[n]) or _is_parts(members[n]))), None
    )
    if role is None or content is None:
        return None
    column = _one(rows.column(name))
    counts = np.asarray(pc.fill_null(pc.list_value_length(column), 0)).astype(np.int64)
    flat = column.flatten()
    return _Turns(
        role=_strings(pc.struct_field(flat, role)),
        content=pc.fill_null(_content(pc.struct_field(flat, content)), ""),
        counts=counts,
        valid=np.asarray(pc.is_valid(column)),
    )


def _is_parts(kind: pa.DataType) -> bool:
    """Lists of objects of which some hold text, and others pictures."""
    if not (pa.types.is_list(kind) or pa.types.is_large_list(kind)) or not pa.types.is_struct(kind.value_type):
        return False
    place = kind.value_type.get_field_index("text")
    return place >= 0 and _is_text(kind.value_type.field(place).type)


def _content(column: Any) -> pa.StringArray:
    if not _is_parts(column.type):
        return _strings(column)
    flat = column.flatten()
    there = pc.is_valid(pc.struct_field(flat, "text"))
    owner = np.asarray(pc.list_parent_indices(column))[np.asarray(there)]
    counts = np.bincount(owner, minlength=len(column))
    offsets = pa.array(np.concatenate(([0], np.cumsum(counts))), pa.int64())
    parts = _strings(pc.struct_field(flat, "text")).filter(there)
    return _in_lines(offsets, parts)


def _join(turns: _Turns, roles: tuple[str, ...] | None) -> pa.StringArray:
    """The contents of the turns with one of `roles`, a row's turns one below the other; null where it has none."""
    content, counts = turns.content, turns.counts
    if roles is not None:
        wanted = pc.fill_null(pc.is_in(turns.role, value_set=pa.array(roles, turns.role.type)), False)
        mask = np.asarray(wanted)
        owner = np.repeat(np.arange(len(counts)), counts)
        counts = np.bincount(owner[mask], minlength=len(counts))
        content = content.filter(wanted)
    if len(content) == len(counts) and (counts == 1).all():
        return _strings(content)
    offsets = np.concatenate(([0], np.cumsum(counts)))
    joined = _in_lines(pa.array(offsets, pa.int64()), content)
    return pc.if_else(pa.array((counts > 0) & turns.valid), joined, pa.scalar(None, joined.type))


def _in_lines(offsets: Any, texts: Any) -> Any:
    """Texts from one offset to the next, one below the other."""
    return pc.binary_join(pa.LargeListArray.from_arrays(offsets, texts), pa.scalar("\n", texts.type))


def _is_text(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        return _is_text(kind.value_type)
    # A column of nothing but nulls is a field that no row has.
    return (
        pa.types.is_string(kind) or pa.types.is_large_string(kind) or kind == pa.string_view() or pa.types.is_null(kind)
    )


def _strings(column: Any) -> pa.StringArray:
    array = _one(column)
    return array if pa.types.is_string(array.type) else array.cast(pa.large_string())


def _one(column: Any) -> Any:
    if isinstance(column, pa.Array):
        return column
    return column.chunk(0) if column.num_chunks == 1 else pa.concat_arrays(column.chunks or [pa.array([], column.type)])
