"""Column types of JSON rows, found before the rows are read into columns.

The type of a column is what all its values have in common: null fits everything, whole numbers widen to floats,
objects of different keys become one struct. What does not fit what came before is a `Conflict` that names the
field: the row is wrong, not the column.
"""

# Arrow's arrays are generic over types that only run time knows.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportUnknownParameterType=false, reportMissingTypeArgument=false
from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

import orjson
import pyarrow as pa

__all__ = ["Conflict", "Kind", "arrow_type", "column", "common", "kind_of", "loosely", "unify"]

Kind = Any
"""`null`, `bool`, `int`, `bigint`, `float`, `string`; ("list", kind); ("struct", ((name, kind), …)); `json`, a column
of JSON text. Hashable."""

_NAMES = {"int": "whole number", "bigint": "whole number", "float": "number", "string": "text", "bool": "true/false"}
_SCALARS: dict[type, str] = {str: "string", bool: "bool", float: "float", type(None): "null"}


class Conflict(ValueError):
    """Two values of one column have no type in common."""


def kind_of(value: Any, where: str = "") -> Kind:
    """The kind of one JSON value."""
    scalar = _SCALARS.get(type(value))
    if scalar is not None:
        return scalar
    if isinstance(value, int):
        if not -(1 << 63) <= value < 1 << 63:
            raise Conflict(f"{where}: {value} does not fit into 64 bits")
        # Whole numbers beyond 2^53 are not exact as floats.
        return "int" if -(1 << 53) <= value <= 1 << 53 else "bigint"
    if isinstance(value, list):
        kind: Kind = "null"
        for item in value:  # pyright: ignore[reportUnknownVariableType]
            kind = unify(kind, kind_of(item, f"{where}[]"), f"{where}[]")
        return ("list", kind)
    return ("struct", tuple((k, kind_of(v, f"{where}.{k}" if where else k)) for k, v in value.items()))


def unify(old: Kind, new: Kind, where: str = "") -> Kind:
    """What both fit into.

    Raises:
        Conflict: nothing; names the field.
    """
    if old == new or new == "null":
        return old
    if old == "null":
        return new
    if isinstance(old, tuple) and isinstance(new, tuple) and old[0] == new[0]:
        if old[0] == "list":
            return ("list", unify(old[1], new[1], f"{where}[]"))
        fields = dict(old[1])
        for name, kind in new[1]:
            inner = f"{where}.{name}" if where else name
            fields[name] = unify(fields[name], kind, inner) if name in fields else kind
        return ("struct", tuple(fields.items()))
    pair = {old, new}
    if pair == {"int", "float"}:
        return "float"
    if pair == {"int", "bigint"}:
        return "bigint"
    raise Conflict(f"{where}: {_name(new)} here, {_name(old)} in earlier rows")


def common(rows: Mapping[Kind, int], text: frozenset[str] = frozenset()) -> tuple[dict[str, Kind], dict[Kind, str]]:
    """The columns of rows of these kinds, and the kinds that do not fit in, with why.

    One odd row at the top does not make all others odd: a kind whose columns hold what they hold in most rows comes
    first, then the one that was there first.

    Args:
        rows: kinds of whole rows in the order they were seen, and how many rows are of each.
        text: columns that are wanted as text: if any row holds text there, what else stands there does not fit.
    """
    held: dict[str, Counter[str]] = {}
    for (_, fields), count in rows.items():
        for name, kind in fields:
            if kind != "null":
                held.setdefault(name, Counter())[_family(kind)] += count
    usual = {
        name: "string" if name in text and families["string"] else families.most_common(1)[0][0]
        for name, families in held.items()
    }

    def oddities(kind: Kind) -> int:
        return sum(inner != "null" and _family(inner) != usual[name] for name, inner in kind[1])

    columns: Kind = ("struct", ())
    unfit: dict[Kind, str] = {}
    order = {kind: place for place, kind in enumerate(rows)}
    first = len(rows)
    for kind in sorted(rows, key=oddities):
        try:
            columns = unify(columns, kind)
            first = min(first, order[kind])
        except Conflict as error:
            earlier = order[kind] > first
            unfit[kind] = str(error) if earlier else str(error).replace("in earlier rows", "in other rows")
    # Columns stand in the order in which the file brings them.
    names = dict.fromkeys(name for _, fields in rows for name, _ in fields)
    found = dict(columns[1])
    return {name: found[name] for name in names if name in found}, unfit


def loosely(rows: Iterable[Kind]) -> dict[str, Kind]:
    """The columns of rows of these kinds, of which none is wrong: where two disagree, the column holds JSON text."""
    columns: dict[str, Kind] = {}
    for _, fields in rows:
        for name, kind in fields:
            try:
                columns[name] = "json" if columns.get(name) == "json" else unify(columns.get(name, "null"), kind)
            except Conflict:
                columns[name] = "json"
    return columns


def _family(kind: Kind) -> str:
    if isinstance(kind, tuple):
        return kind[0]
    return "number" if kind in ("int", "bigint", "float") else kind


def arrow_type(kind: Kind) -> pa.DataType:
    """The Arrow type of a column. A column of nothing but nulls becomes text; so do objects without any key, which
    Parquet cannot hold (see `column`)."""
    scalars = {"bool": pa.bool_(), "int": pa.int64(), "bigint": pa.int64(), "float": pa.float64()}
    if not isinstance(kind, tuple):
        return scalars.get(kind, pa.string())
    if _as_text(kind):
        return pa.string()
    if kind[0] == "list":
        return pa.list_(arrow_type(kind[1]))
    return pa.struct([(name, arrow_type(inner)) for name, inner in kind[1]])


def _as_text(kind: Kind) -> bool:
    """Whether a column must be written as JSON text because an object in it never has a key."""
    if not isinstance(kind, tuple):
        return kind == "json"
    return _as_text(kind[1]) if kind[0] == "list" else not kind[1] or any(_as_text(inner) for _, inner in kind[1])


def column(values: list[Any], kind: Kind) -> pa.Array:
    """Values of one column as an Arrow array."""
    if _as_text(kind):
        plain = (str, type(None)) if kind == "json" else type(None)
        values = [value if isinstance(value, plain) else orjson.dumps(value).decode() for value in values]
    return pa.array(values, arrow_type(kind))


def _name(kind: Kind) -> str:
    return _NAMES.get(kind, kind) if isinstance(kind, str) else {"list": "a list", "struct": "an object"}[kind[0]]
