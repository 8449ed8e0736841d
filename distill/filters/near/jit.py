"""Compiled functions: `@kernel` turns a function over arrays into machine code.

Compiling takes seconds, once a machine: the result is kept beside the module like Python's own byte code, or in the
user's cache folder where that is not writable (`NUMBA_CACHE_DIR` names another), and is made again when the module
changes. One line on stderr says so when it happens. Kernels that call each other stand in one module, because only that
module's text is checked for changes. They run without the interpreter's lock.
"""

# numba's types are partial.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba
from numba.core import event

__all__ = ["direct", "inline", "kernel"]

F = TypeVar("F", bound=Callable[..., object])


def kernel(function: F) -> F:
    """Compile at the first call, and keep the result for later processes."""
    try:
        return cast("F", numba.njit(function, cache=True, nogil=True))
    except RuntimeError:  # no folder can be written: compiled in every process
        return cast("F", numba.njit(function, nogil=True))


def inline(function: F) -> F:
    """A part of kernels: compiled with them, with no entry of its own."""
    return cast("F", numba.njit(function, nogil=True))


def direct(function: F, *arguments: object) -> F:
    """The machine code of a kernel for arguments of the types that these have. To be called with such only: a kernel
    looks at the types of all its arguments at every call, which takes longer than a short text."""
    dispatcher: Any = function
    found = dispatcher.overloads.get(tuple(numba.typeof(argument) for argument in arguments))
    return function if found is None else found.entry_point


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
