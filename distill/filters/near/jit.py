"""Compiled functions: `@kernel` turns a function over arrays into machine code.

Compiling takes seconds, once a machine: the result is kept beside the module like Python's own byte code, or in the
user's cache folder where that is not writable (`NUMBA_CACHE_DIR` names another), and is made again when the module
changes. Kernels that call each other stand in one module, because only that module's text is checked for changes.
They run without the interpreter's lock.
"""

# numba's types are partial.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar, cast

import numba

__all__ = ["inline", "kernel"]

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
