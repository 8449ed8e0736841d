"""Jinja with an allow-list: the one place where a prompt file becomes code.

A prompt may be downloaded, and what it shows (seeds, documents, answers) is written by anyone. Values are never
templates, so theirs is not a question of syntax; the template itself is kept in by four walls:

1. Grammar: `compile_template` walks the syntax tree and refuses every construct that is not listed. There is no
   include, import, extends, macro, call of a function, power, or name that begins with an underscore.
2. Values: attributes are an allow-list per type; mappings and lists give their items and nothing else.
3. Filters, tests and operators are bounded (`distill.prompting.allowed`), and there are no globals.
4. Loops count their turns, and rendering stops at `MAX_TEXT` characters.

The idea of the grammar check is NVIDIA NeMo DataDesigner's; the walls under it are Jinja's own sandbox.
"""

# Jinja's syntax tree is typed loosely.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from types import BuiltinMethodType, MappingProxyType
from typing import Any

from jinja2 import StrictUndefined, Template, TemplateSyntaxError, Undefined, nodes, pass_context
from jinja2.exceptions import SecurityError
from jinja2.runtime import Context, LoopContext
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import missing
from jinja2.visitor import NodeTransformer

from distill.planning import Seed, Slot, Topic
from distill.prompting.allowed import FILTERS, MAX_ITEMS, TESTS, bounded, checked_items, joined, printable

__all__ = ["Missing", "Refused", "compile_template", "fields_of", "names_used"]

MAX_SOURCE = 256_000
"""Characters of a template."""
_MAX_DEPTH = 100
"""Levels of its syntax tree."""

_ATTRIBUTES: dict[type, frozenset[str]] = {
    Seed: frozenset({"id", "text", "leaf", "data"}),
    Topic: frozenset({"name", "path", "description", "labels"}),
    Slot: frozenset({"id", "index"}),
    LoopContext: frozenset(
        {"index", "index0", "revindex", "revindex0", "first", "last", "length", "previtem", "nextitem", "cycle"}
    ),
}
_METHODS = frozenset({"items", "keys", "values", "get"})
"""Methods that may be called, of mappings; and `loop.cycle`."""

_GRAMMAR: tuple[type[nodes.Node], ...] = (
    nodes.Template, nodes.Output, nodes.TemplateData, nodes.If, nodes.For, nodes.Assign,
    nodes.Const, nodes.Name, nodes.Tuple, nodes.List, nodes.Dict, nodes.Pair, nodes.CondExpr,
    nodes.Filter, nodes.Test, nodes.Keyword, nodes.Call, nodes.Getattr, nodes.Getitem, nodes.Slice,
    nodes.Concat, nodes.Compare, nodes.Operand, nodes.And, nodes.Or, nodes.Not,
    nodes.Add, nodes.Sub, nodes.Mul, nodes.Div, nodes.FloorDiv, nodes.Mod, nodes.Neg, nodes.Pos,
)  # fmt: skip

_LIMIT = 1 << 63


class Refused(SecurityError):
    """The template asks for something prompts cannot do."""

    def __init__(self, message: str, line: int) -> None:
        super().__init__(message)
        self.line = line


class Missing(str):
    """Message of an undefined value that remembers what was looked for, and in what (None: among the variables)."""

    name: str
    within: Any

    @classmethod
    def of(cls, name: str, within: Any) -> Missing:
        self = cls(f"no such {'variable' if within is None else 'field'}: {name}")
        self.name, self.within = name, within
        return self


class _Strict(StrictUndefined):
    __slots__ = ()

    @property
    def _undefined_message(self) -> str:
        name, obj = str(self._undefined_name), self._undefined_obj
        if obj is None:
            return f"{name}: there is nothing to take it from; test that first, with `{{% if … %}}`"
        return Missing.of(name, None if obj is missing else obj)


class _Environment(ImmutableSandboxedEnvironment):
    intercepted_binops = frozenset(ImmutableSandboxedEnvironment.default_binop_table)

    def __init__(self) -> None:
        super().__init__(
            undefined=_Strict,
            finalize=_shown,
            autoescape=False,
            optimized=False,
            trim_blocks=True,
            lstrip_blocks=True,
            cache_size=0,
        )
        self.globals.clear()
        self.filters = {**FILTERS, "_each": _each, "_built": checked_items, "_joined": joined}
        self.tests = dict(TESTS)

    def getattr(self, obj: Any, attribute: str) -> Any:
        allowed = _ATTRIBUTES.get(type(obj))
        if allowed is not None:
            return getattr(obj, attribute) if attribute in allowed else self.undefined(obj=obj, name=attribute)
        if isinstance(obj, Mapping):
            # The key goes first: a field that is called `items` is what a prompt means.
            if attribute in obj:
                return obj[attribute]
            if attribute in _METHODS:
                return getattr(obj, attribute)
        elif isinstance(obj, Undefined):
            return getattr(obj, attribute)
        return self.undefined(obj=obj, name=attribute)

    def getitem(self, obj: Any, argument: Any) -> Any:
        if isinstance(obj, (list, tuple, str, Mapping)):
            try:
                return obj[argument]
            except (TypeError, LookupError):
                return self.undefined(obj=obj, name=argument)
        return self.getattr(obj, str(argument))

    def is_safe_callable(self, obj: Any) -> bool:
        if isinstance(obj, BuiltinMethodType):
            return type(obj.__self__) in (dict, MappingProxyType) and obj.__name__ in _METHODS
        return getattr(obj, "__func__", None) is LoopContext.cycle

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        for side in (left, right):
            if isinstance(side, Undefined):
                str(side)
        if isinstance(left, (int, float)) and isinstance(right, (int, float)):
            result = self.binop_table[operator](left, right)
            if isinstance(result, int) and not -_LIMIT < result < _LIMIT:
                raise SecurityError("makes a number of more than 63 bits")
            return result
        if operator == "+" and isinstance(left, str) and isinstance(right, str):
            return bounded(left + right)
        if operator == "+" and isinstance(left, (list, tuple)) and isinstance(right, (list, tuple)):
            return checked_items([*left, *right])
        raise SecurityError(f"`{operator}` works on numbers here; join texts with `~`")


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else printable(value)


@pass_context
def _each(context: Context, value: Any) -> Any:
    """What a loop runs over, after its turns are counted."""
    if isinstance(value, Undefined):
        str(value)
    if isinstance(value, str) or not hasattr(value, "__len__"):
        raise TypeError(f"a loop needs a list, not {type(value).__name__}")
    spent: list[int] = context.parent["_spent"]
    spent[0] += len(value)
    if spent[0] > MAX_ITEMS:
        raise SecurityError(f"loops of more than {MAX_ITEMS:,} turns in all")
    return value


_ENVIRONMENT = _Environment()


def compile_template(source: str, filename: str) -> tuple[Template, dict[str, int], bool]:
    """Check and compile.

    Returns:
        the template; the variables it takes, with the line of their first use; whether it has loops (rendering then
        needs the variable `_spent`, a list with one zero).

    Raises:
        Refused: not a template, or it asks for something prompts cannot do.
    """
    if len(source) > MAX_SOURCE:
        raise Refused(f"longer than {MAX_SOURCE:,} characters", 1)
    try:
        tree = _ENVIRONMENT.parse(source, filename=filename)
        _check(tree)
        used = names_used(tree)
        loops = tree.find(nodes.For) is not None
        code = _ENVIRONMENT.compile(_Walls().visit(tree), name=filename, filename=filename)
    except TemplateSyntaxError as error:
        raise Refused(_syntax(error), error.lineno) from None
    except (RecursionError, SyntaxError, MemoryError):
        raise Refused("nested too deeply", 1) from None
    except ValueError as error:
        raise Refused(f"not a template: {error}", 1) from None
    return Template.from_code(_ENVIRONMENT, code, {}), used, loops


def names_used(tree: nodes.Template) -> dict[str, int]:
    """Variables that must be given: used, not set by the template itself, and never asked for with `is defined` or
    `default`."""
    bound = {name.name for name in tree.find_all(nodes.Name) if name.ctx == "store"} | {"loop"}
    optional = {
        guard.node.name
        for guard in tree.find_all((nodes.Test, nodes.Filter))
        if guard.name in ("defined", "undefined", "default", "d") and isinstance(guard.node, nodes.Name)
    }
    used: dict[str, int] = {}
    for name in tree.find_all(nodes.Name):
        if name.ctx == "load" and name.name not in bound | optional:
            used[name.name] = min(name.lineno, used.get(name.name, name.lineno))
    return dict(sorted(used.items(), key=lambda item: item[1]))


def fields_of(value: Any) -> list[str]:
    """What a prompt may name of a value."""
    if isinstance(value, Mapping):
        return [str(key) for key in value]
    return sorted(_ATTRIBUTES.get(type(value), ()))


def _check(tree: nodes.Template) -> None:
    for depth, node in _all(tree):
        line = getattr(node, "lineno", 1) or 1
        if depth > _MAX_DEPTH:
            raise Refused("nested too deeply", line)
        if not isinstance(node, _GRAMMAR):
            raise Refused(f"`{_word(node)}` is not available in prompts", line)
        match node:
            case nodes.Name(name=name) if name.startswith("_") or name in ("self", "super", "caller", "varargs"):
                raise Refused(f"the name {name} is not available in prompts", line)
            case nodes.Getattr(attr=name) if name.startswith("_"):
                raise Refused(f"the field {name} is not available in prompts", line)
            case nodes.Filter(name=name) if name not in FILTERS:
                raise Refused(f"no such filter: {name}; there are: {', '.join(sorted(FILTERS))}", line)
            case nodes.Test(name=name) if name not in TESTS:
                raise Refused(f"no such test: {name}; there are: {', '.join(sorted(TESTS))}", line)
            case nodes.Call() if not isinstance(node.node, nodes.Getattr) or node.node.attr not in (*_METHODS, "cycle"):
                raise Refused("calls are not available in prompts: use a filter, or a loop over what is given", line)
            case nodes.For(recursive=True):
                raise Refused("recursive loops are not available in prompts", line)
            case nodes.Const(value=int(value)) if not -_LIMIT < value < _LIMIT:
                raise Refused("a number of more than 63 bits", line)
            case _:
                pass
        if getattr(node, "dyn_args", None) is not None or getattr(node, "dyn_kwargs", None) is not None:
            raise Refused("`*` and `**` arguments are not available in prompts", line)


def _all(tree: nodes.Node) -> Iterator[tuple[int, nodes.Node]]:
    """Every node with its depth."""
    open_ = [(0, tree)]
    while open_:
        depth, node = open_.pop()
        yield depth, node
        open_.extend((depth + 1, child) for child in node.iter_child_nodes())


class _Walls(NodeTransformer):
    """Puts the bounds where Jinja has no hook: around loops, literals and `~`."""

    def visit_For(self, node: nodes.For) -> nodes.Node:
        self.generic_visit(node)
        node.iter = _call("_each", node.iter)
        return node

    def visit_List(self, node: nodes.List) -> nodes.Node:
        self.generic_visit(node)
        return _call("_built", node) if any(not isinstance(item, nodes.Const) for item in node.items) else node

    def visit_Tuple(self, node: nodes.Tuple) -> nodes.Node:
        self.generic_visit(node)
        return _call("_built", node) if node.ctx == "load" else node

    def visit_Dict(self, node: nodes.Dict) -> nodes.Node:
        self.generic_visit(node)
        return _call("_built", node)

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:
        self.generic_visit(node)
        return _call("_joined", nodes.List(node.nodes, lineno=node.lineno))


def _call(name: str, node: Any) -> nodes.Filter:
    return nodes.Filter(node, name, [], [], None, None, lineno=node.lineno)


def _word(node: nodes.Node) -> str:
    words = {
        "AssignBlock": "set … endset",
        "CallBlock": "call",
        "FilterBlock": "filter",
        "Pow": "**",
        "NSRef": "namespace",
    }
    name = type(node).__name__
    return words.get(name, re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name).lower())


def _syntax(error: TemplateSyntaxError) -> str:
    message = (error.message or "not a template").rstrip(".")
    return f"not a template: {message[:1].lower()}{message[1:]}"
