"""distill: from a topic taxonomy and teacher models to a dataset, a trained student, and the proof of its gain.

    import distill

    async for row in distill.generate("recipes/support.yaml"):
        print(row.messages[-1].content)

Names are loaded when they are used: `import distill` takes milliseconds and never loads torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from distill.dataset import Row
    from distill.engine import generate, generate_sync, open_run
    from distill.errors import DistillError
    from distill.recipe import Recipe, load_recipe

__all__ = ["DistillError", "Recipe", "Row", "generate", "generate_sync", "load_recipe", "open_run"]

_HOMES = {
    "DistillError": "distill.errors",
    "Recipe": "distill.recipe",
    "Row": "distill.dataset",
    "generate": "distill.engine",
    "generate_sync": "distill.engine",
    "load_recipe": "distill.recipe",
    "open_run": "distill.engine",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'distill' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
