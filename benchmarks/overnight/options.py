"""What these benchmarks take from the command line, after their name."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from benchmarks.overnight.tools import PEERS, TOOLS

__all__ = ["numbers", "parser", "read"]


def numbers(text: str) -> tuple[int, ...]:
    """`32,256,1_000`."""
    return tuple(int(part.replace("_", "")) for part in text.split(","))


def _tools(text: str) -> tuple[str, ...]:
    chosen = tuple(text.split(","))
    for name in chosen:
        if name not in TOOLS:
            raise argparse.ArgumentTypeError(f"no such tool: {name}; there are {', '.join(TOOLS)}")
    return chosen


def parser(name: str, *, peers: tuple[str, ...] = PEERS, limit: float) -> argparse.ArgumentParser:
    """The options all of them have."""
    made = argparse.ArgumentParser(prog=f"python -m benchmarks {name}", allow_abbrev=False)
    made.add_argument("--only", type=_tools, default=("distill", *peers), metavar="TOOL,…", help="tools, left to right")
    made.add_argument("--limit", type=float, default=limit, metavar="SECONDS", help="most for one cell of the table")
    made.add_argument("--keep", type=Path, metavar="FOLDER", help="keep what the tools wrote, with their output")
    return made


def read(made: argparse.ArgumentParser, name: str) -> argparse.Namespace:
    """The options that stand after the benchmark's name."""
    given = sys.argv[sys.argv.index(name) + 1 :] if name in sys.argv else []
    return made.parse_args(given)
