"""Keeps a server from outliving the run that started it, however the run ends.

Run as a program (`python leash.py COMMAND…`): it starts the command and holds its own standard input open. When the
other end closes, because the run closed it or because the run was killed, the command is terminated, then killed.
Should this process itself be killed, the kernel kills the command (Linux). Standard library only: it is started
without site-packages, in some tens of milliseconds.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import threading
from types import FrameType

_GRACE_S = 3.0
_PR_SET_PDEATHSIG = 1


def main(command: list[str]) -> int:
    """Run `command` until it ends or standard input does; returns its exit status as a shell would."""
    libc = ctypes.CDLL(None, use_errno=True)  # loaded before the fork: nothing may be loaded after it

    def bind() -> None:
        if sys.platform == "linux":
            libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)

    # This process has one thread here, so running code between fork and exec is safe.
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, preexec_fn=bind)  # noqa: S603

    def on_signal(number: int, frame: FrameType | None) -> None:
        _stop(process)

    threading.Thread(target=_end_with_input, args=(process,), daemon=True).start()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, on_signal)
    status = process.wait()
    return status if status >= 0 else 128 - status


def _end_with_input(process: subprocess.Popen[bytes]) -> None:
    while os.read(0, 4096):
        pass
    _stop(process)


def _stop(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(OSError):
        process.terminate()
    # `wait` belongs to the main thread; polling a flag would do no better than a timer.
    timer = threading.Timer(_GRACE_S, lambda: process.poll() is None and process.kill())
    timer.daemon = True
    timer.start()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
