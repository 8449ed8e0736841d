"""What all commands share: where text goes, how untrusted text is shown, how a run is driven from a terminal.

Results go to stdout, everything else to stderr. With `--json` stdout carries machine-readable lines only, the
last one being the result.
"""

from __future__ import annotations

import asyncio
import gc
import os
import re
import signal
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Annotated, Any, TypeVar

import orjson
import typer
from rich.console import Console
from rich.text import Text

from distill.errors import DistillError, InputError, first_of

__all__ = [
    "JsonOption",
    "NewOption",
    "QuietOption",
    "RecipeArgument",
    "RunOption",
    "err",
    "find_recipe",
    "out",
    "print_error",
    "print_json",
    "run_loop",
    "safe",
]

T = TypeVar("T")

_SWITCH_S = 0.0005

RecipeArgument = Annotated[str, typer.Argument(help="A recipe file, or the name of one in recipes/.")]
RunOption = Annotated[Path | None, typer.Option("--run", help="Run directory; left out, the recipe's own.")]
NewOption = Annotated[bool, typer.Option("--new", help="Begin another run even if one with the same inputs exists.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")]
QuietOption = Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")]


class _Console(Console):
    """Shows text as it is: a path may hold brackets or colons, and a line that was broken at the width of a terminal
    that is not there could not be copied or piped. Tables, panels and what moves are laid out."""

    def __init__(self, *, stderr: bool = False) -> None:
        super().__init__(stderr=stderr, highlight=False, markup=False, emoji=False)

    def print(self, *objects: Any, **options: Any) -> None:
        options.setdefault("soft_wrap", all(isinstance(item, (str, Text)) for item in objects))
        super().print(*objects, **options)


out = _Console()
err = _Console(stderr=True)

# C0 and C1 controls but tab and line feed, and the marks that change the direction of what follows: a model's
# answer must not be able to move the cursor, set a title or hide text.
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def safe(text: str, *, limit: int | None = None) -> Text:
    """Untrusted text for the terminal: no markup, no control characters, cut at `limit` characters."""
    if limit is not None and len(text) > limit:
        text = text[: limit - 1] + "…"
    text = text.encode("utf-8", "replace").decode("utf-8")
    return Text(_CONTROL.sub(lambda match: f"\\x{ord(match.group()):02x}", text))


def print_json(value: Any) -> None:
    """One JSON object on one line of stdout."""
    if sys.stdout is None:  # closed by the caller (`>&-`)
        return
    sys.stdout.write(orjson.dumps(value, default=str).decode() + "\n")
    sys.stdout.flush()


def print_error(error: DistillError, *, json: bool) -> None:
    """The error for a person, and for a machine when it asked for JSON."""
    err.print(Text("error: ", style="bold red") + safe(error.message))
    if error.hint:
        err.print(Text("  ") + safe(error.hint))
    if json:
        print_json({**error.details, "error": type(error).__name__, "message": error.message, "hint": error.hint})


def find_recipe(name: str) -> Path:
    """The recipe file that a command's argument means: a path, or a name in `recipes/`."""
    from distill.assets import find

    given = Path(name)
    if given.is_file():
        return given
    if given.is_dir():
        raise InputError("is a folder, not a recipe file", path=given)
    return find("recipes", name, base=Path.cwd())


def run_loop(main: Coroutine[Any, Any, T], *, drain: Callable[[], None] | None = None) -> T:
    """Drive `main` to its end. The first SIGINT or SIGTERM calls `drain` (without one: cancels `main`, which closes
    what it has opened), the second leaves at once."""
    try:
        import uvloop

        factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    except ImportError:
        factory = asyncio.new_event_loop
    seen = 0

    async def guarded() -> T:
        loop, task = asyncio.get_running_loop(), asyncio.current_task()

        def stop() -> None:
            nonlocal seen
            seen += 1
            if seen > 1:
                os._exit(130)
            if drain is None:
                err.print("stopping")
                if task is not None:
                    task.cancel()
            else:
                err.print("stopping: what is in flight is awaited for ten seconds and stored (again to leave at once)")
                drain()

        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, stop)
        return await main

    # Requests make many small objects that live as long as an answer takes: with the default thresholds the
    # collector walks them, and everything that was imported, hundreds of times for nothing (a sixth of all CPU).
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 50, 100)
    # The thread that stores answers asks for the interpreter a dozen times a batch, and a busy loop lets it wait for an
    # interval each time: by default 5 ms, so that answers of a burst stood in memory for 60 to 200 ms.
    sys.setswitchinterval(_SWITCH_S)
    with asyncio.Runner(loop_factory=factory) as runner:
        try:
            return runner.run(guarded())
        except BaseExceptionGroup as group:
            raise first_of(group) from None
        except asyncio.CancelledError:
            raise KeyboardInterrupt from None
