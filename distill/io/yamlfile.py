"""YAML read strictly: duplicate keys are refused, and every key knows its line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from distill.errors import InputError

__all__ = ["Lines", "parse_yaml", "read_yaml"]

Lines = dict[tuple[str | int, ...], int]
"""Path of keys and list positions -> line number from 1."""

_MOST = 200_000
_INT = "tag:yaml.org,2002:int"
_LONG = 17  # characters of the shortest number of more than 64 bits: 0x10000000000000000 has more
_number: Any = yaml.SafeLoader("").construct_yaml_int
_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def read_yaml(path: Path) -> tuple[Any, Lines]:
    """The file's value and the line of each of its keys.

    Raises:
        InputError: unreadable, not YAML, or a key stands twice; names file and line.
    """
    try:
        text = path.read_text("utf-8")
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror}", path=path) from None
    except UnicodeDecodeError as error:
        raise InputError(f"not UTF-8 (byte {error.start})", path=path) from None
    return parse_yaml(text, path=path)


def parse_yaml(text: str, *, path: Path | None = None, first_line: int = 1) -> tuple[Any, Lines]:
    """The value of a YAML text that starts at `first_line` of `path`, and the line of each of its keys.

    Raises:
        InputError: not YAML, or a key stands twice; names file and line.
    """
    # Lines of the text are counted by the parser; empty ones before it make its count that of the file.
    text = "\n" * (first_line - 1) + text
    try:
        loader = _Loader(text)
        try:
            node = loader.get_single_node()
            lines: Lines = {}
            if node is None:
                return None, lines
            _walk(node, (), lines, path)
            return loader.construct_document(node), lines
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = "" if mark is None else "".join(text.split("\n")[mark.line : mark.line + 1])
        tab = mark is not None and line[mark.column : mark.column + 1] == "\t"
        problem = "a tab where only spaces may stand" if tab else error.problem
        raise InputError(f"not valid YAML: {problem}", path=path, line=mark.line + 1 if mark else None) from None
    except (yaml.YAMLError, ValueError) as error:
        raise InputError(f"not valid YAML: {error}", path=path) from None
    except RecursionError:
        raise InputError("nested too deeply, or an alias that contains itself", path=path) from None


def _walk(node: yaml.Node, where: tuple[str | int, ...], lines: Lines, path: Path | None) -> None:
    lines.setdefault(where, node.start_mark.line + 1)
    if len(lines) > _MOST:  # a few lines of aliases of aliases make millions of values
        raise InputError(f"more than {_MOST:,} values, aliases counted each time", path=path)
    if isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, value in node.value:
            name = str(key.value)
            if name in seen and name != "<<":
                raise InputError("the key stands twice", path=path, line=key.start_mark.line + 1, field=name)
            seen.add(name)
            lines[(*where, name)] = key.start_mark.line + 1
            _walk(value, (*where, name), lines, path)
    elif isinstance(node, yaml.SequenceNode):
        for position, value in enumerate(node.value):
            _walk(value, (*where, position), lines, path)
    elif node.tag == _INT and len(node.value) >= _LONG and not -(1 << 63) <= _number(node) < 1 << 63:
        # No JSON file and no column of a table could hold it.
        field = ".".join(str(part) for part in where)
        raise InputError("a number of more than 64 bits", path=path, line=node.start_mark.line + 1, field=field)
