"""`distill doctor`: what this machine has, for a bug report and for the first hour."""

from __future__ import annotations

import os
import platform
import shutil
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from distill.cli.console import JsonOption, out, print_json

__all__ = ["doctor"]

_PACKAGES = (
    "distill",
    "torch",
    "transformers",
    "trl",
    "peft",
    "bitsandbytes",
    "openai",
    "anthropic",
    "pyarrow",
    "datasets",
)


def doctor(json: JsonOption = False) -> None:
    """Show versions, hardware, models and the workspace."""
    from pathlib import Path

    from distill.assets import workspace_of
    from distill.models import list_models

    workspace = workspace_of(Path.cwd())
    facts: dict[str, Any] = {
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "cores": os.cpu_count(),
        "free_disk_gb": round(shutil.disk_usage(workspace).free / 1e9, 1),
        "workspace": str(workspace),
        "packages": {name: _version(name) for name in _PACKAGES},
        "models": {model.name: "here" if model.present else "not pulled" for model in list_models()},
        "gpu": _gpu(),
    }
    if json:
        print_json(facts)
        return
    for name, value in facts.items():
        shown = ", ".join(f"{key} {item}" for key, item in value.items()) if isinstance(value, dict) else value  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
        out.print(f"{name:>14}  {shown}", markup=False)


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "missing"


def _gpu() -> str:
    try:
        import torch
    except ImportError:
        return "torch is missing"
    return torch.cuda.get_device_name(0) if torch.cuda.is_available() else "none"
