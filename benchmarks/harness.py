"""What the benchmarks share: a loopback teacher in its own process, a probe workspace, a measured command."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent

RECIPE = """\
name: probe
seed: 7
teachers:
  main:
    provider: openai
    base_url: {base_url}
    model: mock
    api_key: ${{TEACHER_KEY}}
    max_concurrency: {concurrency}
    {limits}
    price: {{input: 0.15, output: 0.60}}
    sampling: {{temperature: 0.8, max_tokens: 64}}
plan:
  taxonomy: taxonomies/probe.yaml
  target: {target}
method: {{kind: response, teacher: main, prompt: prompts/probe.j2}}
filters: {filters}
budget: {{usd: 50}}
dataset: {{validation: 0.1}}
"""
TAXONOMY = """\
name: probe
dimensions:
  tone: [calm, angry, terse]
topics:
  cards: {weight: 2, topics: {lost: {}, declined: {}}}
  loans: {topics: {rate: {}, early_repayment: {}}}
"""
PROMPT = """\
{# prompts/probe.j2 #}
Write one customer message about {{ leaf | join(" > ") }}, tone {{ tone }}, number {{ slot.index }}.
"""


def workspace(
    folder: Path, *, base_url: str, target: int, concurrency: int, limits: str = "", filters: str = "[]"
) -> Path:
    """Lay out a probe workspace and return its recipe."""
    for name in ("taxonomies", "prompts"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    (folder / "taxonomies/probe.yaml").write_text(TAXONOMY)
    (folder / "prompts/probe.j2").write_text(PROMPT)
    recipe = folder / "probe.yaml"
    recipe.write_text(
        RECIPE.format(base_url=base_url, target=target, concurrency=concurrency, limits=limits, filters=filters)
    )
    return recipe


class Loopback:
    """A loopback teacher in another process."""

    def __init__(self, *arguments: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.loopback", "--port", "0", *arguments],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        self.port = json.loads(self._process.stdout.readline())["port"]
        self.base_url = f"http://127.0.0.1:{self.port}/v1"

    def stats(self, query: str = "") -> dict[str, Any]:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/stats{query}") as reply:
            return json.load(reply)

    def reset(self) -> None:
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}/reset", method="POST", data=b"{}")
        with urllib.request.urlopen(request) as reply:
            reply.read()

    def close(self) -> None:
        self._process.terminate()
        self._process.wait()


@contextlib.contextmanager
def loopback(*arguments: str) -> Iterator[Loopback]:
    server = Loopback(*arguments)
    try:
        yield server
    finally:
        server.close()


@dataclass(frozen=True)
class Measured:
    """One finished command: its last JSON line, wall and CPU seconds, and peak resident memory in MB."""

    result: dict[str, Any]
    code: int
    wall: float
    cpu: float
    peak_mb: float


def distill(*arguments: str, cwd: Path) -> Measured:
    """Run the command line and measure it."""
    return python("-m", "distill", *arguments, cwd=cwd)


def python(*arguments: str, cwd: Path) -> Measured:
    """Run a program with this Python and measure it; the last line that it prints is a JSON object."""
    environment = {**os.environ, "TEACHER_KEY": "benchmark-key"}
    started = time.monotonic()
    with tempfile.TemporaryFile() as out:
        process = subprocess.Popen(
            [sys.executable, *arguments],
            cwd=cwd,
            env=environment,
            stdout=out,
            stderr=subprocess.DEVNULL,
        )
        _, status, usage = os.wait4(process.pid, 0)
        wall = time.monotonic() - started
        out.seek(0)
        lines = out.read().decode().splitlines()
    result = json.loads(lines[-1]) if lines else {}
    return Measured(
        result, os.waitstatus_to_exitcode(status), wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024
    )


def data_folder(*needed: str) -> Path:
    """The folder of real data, named with `--data DIR`; the folder `../shared/data` beside the checkout else."""
    given = sys.argv[sys.argv.index("--data") + 1 :][:1] if "--data" in sys.argv else []
    folder = Path(given[0]) if given else ROOT.parent / "shared" / "data"
    missing = [name for name in needed if not (folder / name).is_dir()]
    if missing:
        sys.exit(f"{folder} has no {', '.join(missing)}: name the folder that has with --data DIR")
    return folder


def table(head: list[str], rows: list[list[object]]) -> None:
    """Print a Markdown table."""
    print("| " + " | ".join(head) + " |")
    print("|" + "---|" * len(head))
    for row in rows:
        print(
            "| " + " | ".join(f"{cell:.3g}" if isinstance(cell, float) else str(cell) for cell in row) + " |",
            flush=True,
        )
