"""pyarrow without pandas.

At its first conversion from or to numpy pyarrow imports pandas, where that is installed, to know its objects when it
meets them: 0.3 CPU seconds and 70 MB of a process that has none. There is no switch for it. So at that moment pyarrow
is shown no pandas (its Python half, which asks once) and an empty one (its C++ half, which asks until it gets one).
Where a later pyarrow asks in another way, pandas is imported as before. Code that may bring pandas objects along wants
`with_pandas` first: until then they count as any other sequence.
"""

# Modules that come and go are not what types are about.
# pyright: reportUnknownMemberType=false
from __future__ import annotations

import contextlib
import sys
from collections.abc import Sequence
from types import ModuleType

__all__ = ["with_pandas", "without_pandas"]


def without_pandas() -> None:
    """Let pyarrow do without pandas in this process, if it has not looked for it yet. Whoever imports pandas gets it as
    ever, and `to_pandas` works; only `NaT` among Python objects is not known for what it is."""
    import numpy as np
    import pyarrow as pa

    if "pandas" in sys.modules:
        return
    hidden = _Hidden()
    sys.meta_path.insert(0, hidden)
    try:
        numbers = pa.array(np.zeros(1))
    finally:
        sys.meta_path.remove(hidden)
    if "pandas" not in sys.modules:
        sys.modules["pandas"] = ModuleType("pandas")
        try:
            np.asarray(numbers)
        finally:
            del sys.modules["pandas"]


def with_pandas() -> None:
    """Have pyarrow know pandas objects, where pandas is installed."""
    import pyarrow as pa

    with contextlib.suppress(ImportError):
        pa.table({}).to_pandas()


class _Hidden:
    """Finds no pandas, nor lets anybody else find it."""

    def find_spec(self, name: str, path: Sequence[str] | None = None, target: object = None) -> None:
        if name == "pandas":
            raise ModuleNotFoundError(name)
