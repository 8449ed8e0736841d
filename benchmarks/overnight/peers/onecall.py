"""The work every tool is given: one call a row, as many rows as wanted, at a given concurrency.

Imported by the adapters, which run in environments of their own, so it needs nothing but Python.
"""

from __future__ import annotations

import contextlib
import json
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

TEMPERATURE = 0.8
MAX_TOKENS = 64
TIMEOUT_S = 20
LEAVES = ("cards > lost", "cards > declined", "loans > rate", "loans > early repayment")
TONES = ("calm", "angry", "terse")


@dataclass(frozen=True)
class Job:
    """What is asked of a tool. `rpm` is a limit in requests a minute, where there is one to keep."""

    base_url: str
    rows: int
    concurrency: int
    folder: str
    rpm: int | None = None

    def prompts(self) -> list[str]:
        """One prompt a row, all different."""
        return [
            f"Write one customer message about {LEAVES[number % 4]}, tone {TONES[number % 3]}, number {number}."
            for number in range(self.rows)
        ]


def job() -> Job:
    """The job of this process: a JSON object, its only argument."""
    return Job(**json.loads(sys.argv[1]))


@contextlib.contextmanager
def measured() -> Iterator[dict[str, Any]]:
    """Times the block and prints what it puts into the dictionary (`rows`: those accepted) as the last line."""
    told: dict[str, Any] = {"cpu_before": time.process_time()}
    print(json.dumps({"began": time.time()}), flush=True)
    began = time.monotonic()
    yield told
    told["seconds"] = time.monotonic() - began
    print(json.dumps(told), flush=True)


def write(rows: list[dict[str, Any]], folder: str) -> int:
    """Write the accepted rows (those with an answer) for the harness to compare; returns how many."""
    kept = [row for row in rows if row.get("text")]
    with (Path(folder) / "accepted.jsonl").open("w") as file:
        for row in kept:
            file.write(json.dumps({"prompt": row["prompt"], "text": row["text"]}) + "\n")
    return len(kept)
