"""Text in columns of any type: the rows in which an expression matches, and the text of some rows changed.

Columns of text, of lists, objects and maps of text, to any depth. The search runs over Arrow's own buffers; Python
objects are made only of the rows that are changed.
"""

# Arrow's arrays are generic over types that only run time knows.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportUnknownParameterType=false, reportMissingTypeArgument=false
from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute
from numpy.typing import NDArray

__all__ = ["change", "holds_text", "matching", "replaced", "strings"]

pc: Any = pyarrow.compute


def holds_text(kind: Any) -> bool:
    """Whether values of this type can hold text."""
    if pa.types.is_dictionary(kind):
        return holds_text(kind.value_type)
    if pa.types.is_map(kind):
        return holds_text(kind.key_type) or holds_text(kind.item_type)
    if _is_list(kind):
        return holds_text(kind.value_type)
    if pa.types.is_struct(kind):
        return any(holds_text(kind.field(place).type) for place in range(kind.num_fields))
    return pa.types.is_string(kind) or pa.types.is_large_string(kind) or kind == pa.string_view()


def matching(column: Any, pattern: str) -> NDArray[np.bool_]:
    """Shape (rows,): whether any text of the row's value matches an RE2 expression."""
    found = np.zeros(len(column), bool)
    array: Any = (
        pa.concat_arrays(column.chunks) if isinstance(column, pa.ChunkedArray) and column.num_chunks else column
    )
    if len(found):
        _search(array, np.arange(len(found)), pattern, found)
    return found


def _search(array: Any, owner: NDArray[np.int64], pattern: str, found: NDArray[np.bool_]) -> None:
    kind = array.type
    if not holds_text(kind):
        return
    if pa.types.is_dictionary(kind):
        _search(array.dictionary_decode(), owner, pattern, found)
    elif _is_list(kind):
        parents = np.asarray(pc.list_parent_indices(array.cast(pa.list_(kind.value_type)) if _is_view(kind) else array))
        _search(array.flatten(), owner[parents], pattern, found)
    elif pa.types.is_map(kind):
        lengths = np.diff(np.asarray(array.offsets)).astype(np.int64)
        lengths[np.asarray(array.is_null())] = 0
        begin, end = array.offsets[0].as_py(), array.offsets[-1].as_py()
        inner = np.repeat(owner, lengths)
        if len(inner) == end - begin:
            _search(array.keys[begin:end], inner, pattern, found)
            _search(array.items[begin:end], inner, pattern, found)
        else:  # entries under a null: the rows are few enough to be looked at one by one
            found[owner] = True
    elif pa.types.is_struct(kind):
        for place in range(kind.num_fields):
            _search(pc.struct_field(array, place), owner, pattern, found)
    else:
        text = array if kind != pa.string_view() else array.cast(pa.large_string())
        mask = np.asarray(pc.fill_null(pc.match_substring_regex(text, pattern), False))
        found[owner[mask]] = True


def strings(value: Any) -> Iterator[str]:
    """Every text in a value of Python objects."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for inner in value.values():  # pyright: ignore[reportUnknownVariableType]
            yield from strings(inner)
    elif isinstance(value, (list, tuple)):
        for inner in value:  # pyright: ignore[reportUnknownVariableType]
            yield from strings(inner)


def change(value: Any, how: Callable[[str], str]) -> Any:
    """The value with every text in it changed."""
    if isinstance(value, str):
        return how(value)
    if isinstance(value, Mapping):
        return {key: change(inner, how) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(change(inner, how) for inner in value)  # pyright: ignore[reportCallIssue]
    return value


def replaced(column: Any, rows: list[int], values: list[Any]) -> Any:
    """The column with other values in some of its rows; its type stays."""
    kind = column.type
    if pa.types.is_dictionary(kind):
        plain = replaced(column.cast(kind.value_type), rows, values)
        return plain.dictionary_encode().cast(kind)
    places = np.arange(len(column))
    places[rows] = len(column) + np.arange(len(rows))
    chunks = column.chunks if isinstance(column, pa.ChunkedArray) else [column]
    everything: Any = pa.concat_arrays([*chunks, pa.array(values, kind)])
    return everything.take(pa.array(places))


def _is_list(kind: pa.DataType) -> bool:
    return pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind) or _is_view(kind)


def _is_view(kind: pa.DataType) -> bool:
    return pa.types.is_list_view(kind) or pa.types.is_large_list_view(kind)
