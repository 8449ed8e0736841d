"""The runs of a workspace at a glance: what `distill runs` lists."""

from __future__ import annotations

import fcntl
from pathlib import Path
from typing import Any

from distill.engine.rundir import RunDir, list_runs
from distill.errors import InputError
from distill.gateway import Address, own_store, size_of, store_address

__all__ = ["overview", "store_of"]


def overview(workspace: Path) -> list[dict[str, Any]]:
    """One entry a run: name, state, rows, cost, path; a run that cannot be read is one of them (`damaged`).

    `running` means that a process holds the run now; a session that was killed is `interrupted`.
    """
    return [_entry(run) for run in list_runs(workspace)]


def store_of(workspace: Path) -> tuple[str, int | None]:
    """Where the workspace's answers are, and their bytes on disk; a server is not asked for them."""
    address = store_address()
    if address is not None:
        return Address(address.get_secret_value()).shown, None
    path = own_store(workspace)
    return str(path), size_of(path)


def _entry(run: RunDir) -> dict[str, Any]:
    try:
        description: dict[str, Any] = run.describe() or {}
        summary: dict[str, Any] = description.get("summary", {})
        state = description["state"]
        figures = {
            "state": "interrupted" if state == "running" and not _held(run) else str(state),
            "kept": summary.get("kept"),
            "target": description["recipe"]["plan"]["target"],
            "cost_usd": summary.get("cost_usd"),
        }
    except (InputError, KeyError, TypeError, AttributeError):
        figures = {"state": "damaged", "kept": None, "target": None, "cost_usd": None}
    return {"run": run.name, **figures, "path": str(run.path)}


def _held(run: RunDir) -> bool:
    """Whether a process has the run's lock."""
    try:
        with (run.path / ".lock").open("rb") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False
