"""The command line as a harness drives it: its own process, a limit in time, one JSON object last on stdout."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["Said", "distill", "ended", "started"]

LIMIT_S = 120.0


@dataclass(frozen=True)
class Said:
    """What a command said and how it ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> dict[str, Any]:
        """The last line of stdout."""
        return json.loads(self.out.splitlines()[-1])


async def started(
    *arguments: str,
    cwd: Path,
    env: Mapping[str, str] | None = None,
    before: Callable[[], None] | None = None,
) -> asyncio.subprocess.Process:
    """A command under way; `before` runs in the child (limits)."""
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "distill",
        *arguments,
        cwd=cwd,
        env={**os.environ, **(env or {})},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        preexec_fn=before,
    )


async def ended(process: asyncio.subprocess.Process, *, limit: float = LIMIT_S) -> Said:
    """Wait for its end. A command that does not end is a failure, a traceback too."""
    try:
        async with asyncio.timeout(limit):
            out, err = await process.communicate()
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
    assert process.returncode is not None
    said = Said(process.returncode, out.decode(), err.decode())
    assert "Traceback" not in said.err, said.err
    return said


async def distill(
    *arguments: str,
    cwd: Path,
    env: Mapping[str, str] | None = None,
    before: Callable[[], None] | None = None,
    limit: float = LIMIT_S,
) -> Said:
    """Run a command to its end."""
    return await ended(await started(*arguments, cwd=cwd, env=env, before=before), limit=limit)
