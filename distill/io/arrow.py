"""Arrow without pandas, as long as nobody wants a data frame.

Of the first value that Arrow converts it asks whether it is a pandas object, and imports pandas to find out: a quarter
of a second and 35 MB of every run. It asks once: when pandas cannot be imported it goes on without, and looks again
when somebody makes a data frame. In between a pandas object counts as any other sequence, so code that may bring one
along wants `with_pandas` first.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Sequence
from types import ModuleType

import pyarrow as pa

__all__ = ["with_pandas", "without_pandas"]


class _NotNow:
    """A finder that finds pandas missing."""

    def find_spec(self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None) -> None:
        if name == "pandas":
            raise ModuleNotFoundError(name)


def without_pandas() -> None:
    """Let Arrow ask now. To be called before it has converted anything, and while no other thread imports; later, or
    where pandas is loaded already, it does nothing."""
    if "pandas" in sys.modules:
        return
    finder = _NotNow()
    sys.meta_path.insert(0, finder)  # pyright: ignore[reportArgumentType]
    try:
        pa.array([])
    finally:
        sys.meta_path.remove(finder)  # pyright: ignore[reportArgumentType]


def with_pandas() -> None:
    """Have Arrow know pandas objects, where pandas is installed."""
    with contextlib.suppress(ImportError):
        pa.table({}).to_pandas()  # pyright: ignore[reportUnknownMemberType]
