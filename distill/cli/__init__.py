"""The command line: one file a command, all of them thin callers of the rooms.

Exit codes: 0 done, 1 failed, 2 bad input, 3 stopped at a cap or quota (the same command continues), 4 a gate failed.
"""

from __future__ import annotations

import errno
import sys
from collections.abc import Callable
from typing import Annotated, Any

import typer
from typer.exceptions import TyperException

from distill.cli import answers, check, estimate, generate, init, models, preview, report, run, runs
from distill.cli import eval as eval_command
from distill.cli import export as export_command
from distill.cli import filter as filter_command
from distill.cli import merge as merge_command
from distill.cli import releases as releases_command
from distill.cli import serve as serve_command
from distill.cli import train as train_command
from distill.cli import unite as unite_command
from distill.cli.console import err, print_error
from distill.cli.doctor import doctor
from distill.errors import DistillError, InputError, RunError
from distill.io.disk import disk_error

__all__ = ["app", "main"]

app = typer.Typer(
    name="distill",
    help="Synthetic data and distillation: from a topic taxonomy and teacher models to a trained, measured student.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


@app.callback()
def _root(
    debug: Annotated[bool, typer.Option("--debug", help="Log everything the libraries say, secrets masked.")] = False,
) -> None:
    if debug:
        from distill.cli.logs import log_everything

        log_everything()


_COMMANDS: dict[str, Callable[..., Any]] = {
    "init": init.init,
    "check": check.check,
    "preview": preview.preview,
    "estimate": estimate.estimate,
    "generate": generate.generate,
    "unite": unite_command.unite,
    "filter": filter_command.filter_,
    "train": train_command.train,
    "eval": eval_command.evaluate,
    "merge": merge_command.merge,
    "serve": serve_command.serve,
    "run": run.run,
    "quickstart": run.quickstart,
    "runs": runs.runs,
    "report": report.report,
    "doctor": doctor,
}
for _name, _command in _COMMANDS.items():
    app.command(_name)(_command)
app.add_typer(export_command.app, name="export")
app.add_typer(answers.app, name="answers")
app.add_typer(releases_command.app, name="releases")
app.add_typer(models.app, name="models")


def main() -> None:
    """Entry point of the `distill` command."""
    json = "--json" in sys.argv
    try:
        # Without its own handling of exits, click returns the code of `typer.Exit` instead of raising it.
        code = app(standalone_mode=False)
    except DistillError as error:
        print_error(error, json=json)
        sys.exit(error.exit_code)
    except (typer.Abort, KeyboardInterrupt):
        err.print("stopped")
        sys.exit(130)
    except BrokenPipeError:
        sys.exit(1)
    except TyperException as error:
        message = error.format_message()
        if message.startswith("Usage:"):  # a group without a command: its help
            err.print(message)
        else:
            print_error(InputError(message), json=json)
        sys.exit(2)
    except OSError as error:
        # A full disk, a folder that may not be written: not a fault of the program.
        if error.filename is not None:
            print_error(RunError(f"{error.strerror}: {error.filename}"), json=json)
        elif error.errno in (errno.ENOSPC, errno.EDQUOT):
            print_error(disk_error(error), json=False)
        else:
            raise
        sys.exit(1)
    sys.exit(code if isinstance(code, int) else 0)
