"""What `run.json` says of a run when it begins, and whether a later session is still the same run."""

from __future__ import annotations

import os
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

from distill.engine.prepare import Prepared
from distill.engine.shards import payer_of
from distill.errors import InputError
from distill.planning import Shard

__all__ = ["begun", "check_same"]

_PACKAGES = ("distill", "pyarrow", "openai", "anthropic", "jinja2", "datasketch")
_ANOTHER = "leave --run out to start the next run; answers already paid are used again"


def begun(prepared: Prepared, shard: Shard | None = None) -> dict[str, Any]:
    """A new run: enough to run it again."""
    return {
        "format": 1,
        "id": payer_of(prepared.inputs, shard),
        "recipe": prepared.recipe.public(),
        "inputs": prepared.inputs,
        "prompts": {name: prepared.prompts.get(name).digest for name in prepared.prompt_names},
        "versions": {"python": platform.python_version(), **{name: version(name) for name in _PACKAGES}},
        "host": {"system": platform.system(), "machine": platform.machine(), "cores": os.cpu_count()},
        "state": "running",
        "sessions": 1,
    }


def check_same(description: dict[str, Any], prepared: Prepared, shard: Shard | None, folder: Path) -> None:
    """
    Raises:
        InputError: `folder` holds a run of other inputs, or another shard.
    """
    if not isinstance(description.get("id"), str) or not isinstance(description.get("sessions"), int):
        raise InputError("damaged: members are missing", path=folder / "run.json", hint=_ANOTHER)
    if description["inputs"] != prepared.inputs:
        raise InputError(
            "this run was made with other inputs (recipe, taxonomy, prompts, filters or seeds have changed)",
            path=folder,
            hint=_ANOTHER,
        )
    theirs, ours = description.get("shard"), str(shard) if shard is not None else None
    if theirs != ours:
        named = [f"shard {part}" if part else "the whole recipe" for part in (theirs, ours)]
        raise InputError(f"this is the run of {named[0]}, not of {named[1]}", path=folder, hint=_ANOTHER)
