"""Compiled functions: `@kernel` turns a function over arrays into machine code.

Compiling takes seconds, once a machine: the result is kept beside the module like Python's own byte code, or in the
user's cache folder where that is not writable (`NUMBA_CACHE_DIR` names another), and is made again when the module
changes. One line on stderr says so when it happens. Kernels that call each other stand in one module, because only that
module's text is checked for changes. They run without the interpreter's lock, and without counting references to
their arrays (a locked instruction for each slice): they make no arrays of their own.
"""

# numba's types are partial.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba
from llvmlite import ir
from numba import extending
from numba.core import event, types

__all__ = ["direct", "inline", "kernel", "prefetch", "widest"]

F = TypeVar("F", bound=Callable[..., object])
_OPTIONS: Any = {"nogil": True, "_nrt": False}


def kernel(function: F) -> F:
    """Compile at the first call, and keep the result for later processes."""
    try:
        return cast("F", numba.njit(function, cache=True, **_OPTIONS))
    except RuntimeError:  # no folder can be written: compiled in every process
        return cast("F", numba.njit(function, **_OPTIONS))


def inline(function: F) -> F:
    """A part of kernels: compiled with them, with no entry of its own."""
    return cast("F", numba.njit(function, **_OPTIONS))


def direct(function: F, *arguments: object) -> F:
    """The machine code of a kernel for arguments of the types that these have. To be called with such only: a kernel
    looks at the types of all its arguments at every call, which takes longer than a short text."""
    dispatcher: Any = function
    found = dispatcher.overloads.get(tuple(numba.typeof(argument) for argument in arguments))
    return function if found is None else found.entry_point


def _llvm(function: Callable[..., Any]) -> Any:
    """A part of kernels that is written in LLVM's terms."""
    return extending.intrinsic(function)


@_llvm
def widest(typing: Any) -> Any:
    """In a kernel: it may use the widest vectors there are. LLVM takes half of them where the widest have slowed a
    processor down as a whole, which a loop of multiplications is worth."""

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        attributes = builder.function.attributes
        attributes.add("noinline")  # the caller keeps its own
        set.add(attributes, '"prefer-vector-width"="512"')  # llvmlite's own list has no attribute with a value
        return context.get_dummy_value()

    return types.void(), code


@_llvm
def _prefetch(typing: Any, array: Any, place: Any) -> Any:
    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        made = context.make_array(signature.args[0])(context, builder, arguments[0])
        byte, word = ir.IntType(8).as_pointer(), ir.IntType(32)
        address = builder.bitcast(builder.gep(made.data, [arguments[1]]), byte)
        kind = ir.FunctionType(ir.VoidType(), [byte, word, word, word])
        fetch = builder.module.declare_intrinsic("llvm.prefetch", [byte], kind)
        builder.call(fetch, [address, word(0), word(3), word(1)])  # to read, into all caches, data
        return context.get_dummy_value()

    return types.void(array, types.int64), code


@inline
def prefetch(array: Any, place: int) -> None:
    """Have the memory bring `array[place]` while other work goes on. A place that does not exist does no harm."""
    _prefetch(array, place)


class _Notice(event.Listener):
    """Says why nothing moves for some seconds. Kernels that are loaded from the cache are not compiled."""

    said = False

    def on_start(self, event: Any) -> None:
        function = getattr(event.data.get("dispatcher"), "py_func", None)
        ours = getattr(function, "__module__", "").startswith("distill.")
        if ours and not _Notice.said and sys.stderr is not None:
            _Notice.said = True
            print("compiling kernels, once a machine: some ten seconds", file=sys.stderr, flush=True)

    def on_end(self, event: Any) -> None:
        pass


event.register("numba:compile", _Notice())
