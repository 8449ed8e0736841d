"""The command line without a process: `distill("check", "probe.yaml", cwd=folder)` as a shell would run it."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

from distill.cli import main

__all__ = ["Done", "distill"]


@dataclass(frozen=True, slots=True)
class Done:
    """How a command ended and what it printed."""

    code: int
    stdout: str
    stderr: str

    @property
    def json(self) -> Any:
        """The last line of stdout, read."""
        return json.loads(self.stdout.splitlines()[-1])

    @property
    def text(self) -> str:
        return self.stdout + self.stderr


def distill(*arguments: str | Path, cwd: Path, code: int | None = 0) -> Done:
    """Run a command. `code` is the exit code that it must end with; None: any.

    A traceback would come out of here as the exception itself.
    """
    out, err = io.StringIO(), io.StringIO()
    root = logging.getLogger()
    level, handlers = root.level, root.handlers[:]
    ended = 0
    argv = ["distill", *map(str, arguments)]
    with (
        contextlib.chdir(cwd),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        mock.patch.object(sys, "argv", argv),
    ):
        try:
            main()
        except SystemExit as exit_:
            ended = exit_.code if isinstance(exit_.code, int) else 1
        finally:  # `--debug` takes the log over
            root.setLevel(level)
            root.handlers[:] = handlers
    done = Done(ended, out.getvalue(), err.getvalue())
    if code is not None and done.code != code:
        raise AssertionError(f"{' '.join(argv)} ended with {done.code}, not {code}:\n{done.text}")
    return done
