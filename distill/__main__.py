"""The `distill` command, and `python -m distill`."""

from __future__ import annotations

import signal

__all__ = ["main"]


def main() -> None:
    """Run the command line. A Ctrl-C while its modules are read ends the process at once, without a traceback."""
    ours = signal.getsignal(signal.SIGINT) is signal.default_int_handler  # a parent may have it ignored
    if ours:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from distill.cli import main as run

    if ours:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    run()


if __name__ == "__main__":
    main()
