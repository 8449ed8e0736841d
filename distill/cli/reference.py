"""docs/cli.md: what `--help` says of every command.

python -m distill.cli.reference        writes docs/cli.md
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

from typer.main import get_command

from distill.cli import app

__all__ = ["cli_markdown"]

_TARGET = Path(__file__).parents[2] / "docs" / "cli.md"
_WIDTH = 80
_HEAD = """\
# The command line

Written by `python -m distill.cli.reference` from what `--help` prints.

Results go to stdout and everything else to stderr. With `--json` the last line of stdout is one JSON object; an error
is one too: `error`, `message`, `hint`. The first Ctrl-C waits for what is under way, the second leaves at once; the
same command continues.

| exit code | meaning |
|---|---|
| 0 | done |
| 1 | failed: the run cannot go on |
| 2 | bad input: the message names file, line and field |
| 3 | stopped at a cap, a quota or by the first Ctrl-C; the same command continues |
| 4 | a gate failed |
| 130 | left at once, by the second Ctrl-C |
"""


def cli_markdown() -> str:
    """The page."""
    parts = [f"## `{name}`\n\n```\n{text.rstrip()}\n```\n" for name, text in _helps(get_command(app), "distill")]
    return "\n".join([_HEAD, *parts])


def _helps(command: Any, name: str) -> Iterator[tuple[str, str]]:
    """Path and help of a command and of those below it."""
    with command.make_context(name, [], resilient_parsing=True, terminal_width=_WIDTH) as context:
        yield name, command.get_help(context)
    below = cast("dict[str, Any]", getattr(command, "commands", {}))
    for part, inner in below.items():
        yield from _helps(inner, f"{name} {part}")


if __name__ == "__main__":
    _TARGET.write_text(cli_markdown(), "utf-8")
