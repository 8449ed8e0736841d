"""A kill storm: a run is killed with SIGKILL at random moments and continued, again and again, then finished.

What must hold at the end, by the server's own count and the bytes on disk:
- no stored answer is ever lost: the keys in the store only grow, and no stored request is sent again;
- requests sent twice are at most those under way at the kills;
- the dataset equals, byte for byte, that of a run that was never killed.
"""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["FILES", "Storm", "files_of", "finish", "storm"]

FILES = ("rows.parquet", "rejected.parquet", "failed.parquet", "dataset/train.jsonl", "dataset/README.md")


_EARLY = 0.15
_START_S, _WORK_S, _NEVER_S = 1.0, 1.5, 60.0
_SETTLE_S = 0.1  # what the killed process had written to its sockets reaches the server


@dataclass(frozen=True)
class Storm:
    """Counts over all kills. `under_way` is the number of requests that the server saw and the store did not hold
    when the process died; `worst` the most of them at one kill: no more than the requests in flight and the answers on
    their way to the disk."""

    kills: int
    lost: int
    under_way: int
    worst: int
    sent_twice: int
    sessions: int
    equal: bool


def storm(
    folder: Path, *, kills: int, seed: int, stats: Callable[[], dict[str, Any]], reference: dict[str, bytes]
) -> Storm:
    """Kill `distill generate probe.yaml --run out` in `folder` `kills` times, then finish it.

    Args:
        stats: the server's counts: `requests` and `distinct` payloads since it started.
        reference: the files of an uninterrupted run of the same recipe.
    """
    chance = random.Random(seed)
    lost = under_way = worst = done = sessions = 0
    known: set[bytes] = set()
    log = folder / "out" / "log.jsonl"
    before = stats()
    while done < kills:
        sessions += 1
        sent, logged = stats()["requests"], _rounds(log)
        process = subprocess.Popen(
            [sys.executable, "-m", "distill", "generate", "probe.yaml", "--run", "out", "--quiet"],
            cwd=folder,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        # Most kills hit the session at work, replaying or asking, however long it takes to start (its log tells when a
        # round begins); some hit the start. A session that ends by itself is no kill.
        early = chance.random() < _EARLY
        deadline = time.monotonic() + (chance.uniform(0, _START_S) if early else _NEVER_S)
        while time.monotonic() < deadline and process.poll() is None:
            if not early and _rounds(log) > logged:
                early, deadline = True, time.monotonic() + chance.uniform(0, _WORK_S)
            time.sleep(0.005)
        if process.poll() is None:
            os.kill(process.pid, signal.SIGKILL)
            done += 1
        if process.wait() not in (0, -signal.SIGKILL):
            raise RuntimeError(f"a session ended by itself with exit code {process.returncode}")
        time.sleep(_SETTLE_S)
        now = _keys(folder / ".distill" / "answers.sqlite")
        lost += len(known - now)
        unanswered = (stats()["requests"] - sent) - len(now - known)
        under_way, worst = under_way + unanswered, max(worst, unanswered)
        known = now
        if (folder / "out" / "rows.parquet").exists():
            # The run got to its end between two kills: what it left is checked by the bytes; begin another one on
            # the same answers so that replay is killed too.
            (folder / "out" / "rows.parquet").unlink()
    finish(folder)
    after = stats()
    return Storm(
        kills=kills,
        lost=lost,
        under_way=under_way,
        worst=worst,
        sent_twice=(after["requests"] - before["requests"]) - (after["distinct"] - before["distinct"]),
        sessions=sessions + 1,
        equal=files_of(folder) == reference,
    )


def finish(folder: Path) -> None:
    """Run the recipe to its end."""
    subprocess.run(
        [sys.executable, "-m", "distill", "generate", "probe.yaml", "--run", "out", "--quiet"],
        cwd=folder,
        check=True,
        capture_output=True,
    )


def files_of(folder: Path) -> dict[str, bytes]:
    """The bytes that must not depend on interruptions."""
    return {name: (folder / "out" / name).read_bytes() for name in FILES}


def _rounds(log: Path) -> int:
    return log.read_bytes().count(b'"event":"round"') if log.exists() else 0


def _keys(path: Path) -> set[bytes]:
    if not path.exists():
        return set()
    # A reader of its own, in read-only mode: it sees what is committed and changes nothing.
    with sqlite3.connect(f"file:{path}?mode=ro", uri=True) as connection:
        try:
            return {key for (key,) in connection.execute("SELECT key FROM answers")}
        except sqlite3.OperationalError:  # killed before the table was made
            return set()
        finally:
            connection.commit()
