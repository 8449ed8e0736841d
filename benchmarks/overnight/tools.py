"""distill and its peers as commands: where each one's Python is, and how it is given the one-call work.

The peers stand in environments of their own, one folder each, below the folder that `OVERNIGHT_PEERS` names:

    python -m venv FOLDER/curator        FOLDER/curator/bin/pip install bespokelabs-curator
    python -m venv FOLDER/data_designer  FOLDER/data_designer/bin/pip install data-designer
    python -m venv FOLDER/sdg_hub        FOLDER/sdg_hub/bin/pip install sdg-hub
    python -m venv FOLDER/distilabel     FOLDER/distilabel/bin/pip install 'distilabel[openai]' requests pillow

Each tool is used as its documentation says, with its fast settings; its telemetry is off and its caches are new.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from benchmarks.harness import ROOT
from benchmarks.overnight.tree import Ended, run

PEERS = ("curator", "data_designer", "sdg_hub", "distilabel")
TOOLS = ("distill", *PEERS)
PACKAGES = {
    "distill": "distill",
    "curator": "bespokelabs-curator",
    "data_designer": "data-designer",
    "sdg_hub": "sdg-hub",
    "distilabel": "distilabel",
}
_ADAPTERS = Path(__file__).parent / "peers"


@dataclass(frozen=True)
class Told:
    """What a tool made of a job. Rows are accepted ones; seconds and CPU are those of the call, without imports."""

    ended: Ended
    rows: int
    seconds: float
    cpu: float
    start: float
    """Seconds of the whole command that were not the call: starting, importing, ending."""
    trouble: str = ""


def python_of(tool: str) -> Path | None:
    """The interpreter that has the tool; None where it is missing."""
    if tool == "distill":
        return Path(sys.executable)
    folder = os.environ.get("OVERNIGHT_PEERS", "")
    found = Path(folder) / tool / "bin" / "python"
    return found if folder and found.exists() else None


@cache
def version_of(tool: str) -> str:
    """The tool's version; says where it was looked for when it is missing."""
    python = python_of(tool)
    if python is None:
        return f"missing: no {os.environ.get('OVERNIGHT_PEERS', '$OVERNIGHT_PEERS')}/{tool}/bin/python"
    code = f"from importlib.metadata import version; print(version({PACKAGES[tool]!r}))"
    made = subprocess.run([python, "-c", code], capture_output=True, text=True)
    return made.stdout.strip() or "missing: not installed there"


def missing(tool: str) -> bool:
    return version_of(tool).startswith("missing")


def call(
    tool: str,
    folder: Path,
    *,
    base_url: str,
    rows: int,
    concurrency: int,
    limit: float,
    rpm: int | None = None,
    until: Callable[[], bool] | None = None,
) -> Told:
    """Give a tool the work and measure it. The same folder again continues what was broken off there."""
    python = python_of(tool)
    assert python is not None
    folder.mkdir(parents=True, exist_ok=True)
    job = {"base_url": base_url, "rows": rows, "concurrency": concurrency, "folder": str(folder), "rpm": rpm}
    ended = run(
        [str(python), str(_ADAPTERS / f"with_{tool}.py"), json.dumps(job)],
        cwd=folder,
        env=_environment(folder, tool),
        limit=limit,
        until=until,
    )
    lines = [line for line in ended.out.splitlines() if line.startswith("{")]
    told: dict[str, Any] = {}
    for line in lines:
        told |= json.loads(line)
    trouble = "" if ended.code == 0 else "broken off" if ended.code is None else _last(ended.err, ended.code)
    seconds = told.get("seconds", ended.wall)
    return Told(
        ended=ended,
        rows=told.get("rows", 0),
        seconds=seconds,
        cpu=ended.cpu - told.get("cpu_before", 0.0),
        start=ended.wall - seconds,
        trouble=trouble,
    )


def accepted(folder: Path) -> dict[str, str]:
    """What the tool handed over: prompt -> text."""
    file = folder / "accepted.jsonl"
    lines = file.read_text().splitlines() if file.exists() else []
    rows = [json.loads(line) for line in lines]
    return {row["prompt"]: row["text"] for row in rows}


def scratch() -> tempfile.TemporaryDirectory[str]:
    """A folder for one cell: workspace, caches and home of the tool."""
    return tempfile.TemporaryDirectory(prefix="overnight-")


def _environment(folder: Path, tool: str) -> dict[str, str]:
    home = folder / "home"
    home.mkdir(exist_ok=True)
    kept = {name: os.environ[name] for name in ("PATH", "LANG", "TMPDIR") if name in os.environ}
    return {
        **kept,
        "HOME": str(home),
        "XDG_CACHE_HOME": str(home / ".cache"),
        "HF_HOME": str(home / "hf"),
        "NO_PROXY": "127.0.0.1,localhost",
        "OPENAI_API_KEY": "benchmark-key",
        "TEACHER_KEY": "benchmark-key",
        "HF_HUB_OFFLINE": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "DO_NOT_TRACK": "1",
        "TELEMETRY_ENABLED": "False",  # curator
        "CURATOR_CACHE_DIR": str(home / "curator"),
        "NEMO_TELEMETRY_ENABLED": "false",  # Data Designer
        "DATA_DESIGNER_HOME": str(home / "data-designer"),
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",  # no download at import
        "OMP_NUM_THREADS": "1",
        "PYTHONUNBUFFERED": "1",
        **({"PYTHONPATH": str(ROOT)} if tool == "distill" else {}),
    }


def _last(err: str, code: int) -> str:
    lines = [line.strip() for line in err.splitlines() if line.strip()]
    return f"exit {code}: {lines[-1][:100] if lines else ''}"
