"""What runs in the processes of a pool."""

from __future__ import annotations

import contextlib
import gc
import multiprocessing
import os
import pickle
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

from distill.errors import DistillError
from distill.filters.parallel.copies import Copies, Orders
from distill.filters.parallel.segments import Segment
from distill.filters.parallel.wire import table_of
from distill.io.conversion import without_pandas
from distill.io.memory import peak_memory

__all__ = ["Failed", "Reply", "begin", "done", "judge"]


@dataclass(frozen=True, slots=True)
class Failed:
    """An error that a user can meet: these take other arguments than they hold."""

    kind: type[DistillError]
    state: dict[str, Any]

    def again(self) -> DistillError:
        error = self.kind.__new__(self.kind)
        DistillError.__init__(error, self.state["message"], hint=self.state["hint"])
        error.__dict__.update(self.state)
        return error


class Reply(NamedTuple):
    """What comes of a piece of work, and what the process it was done in has used so far."""

    found: Any
    process: int
    cpu: float
    loaded: float
    """CPU seconds of the fork server until everything was loaded."""
    peak: int
    """Bytes."""


_copies: tuple[bytes, Copies] | None = None
_LOADED = time.process_time()
"""In a worker this is from before the fork."""


def begin(orders: Orders | None) -> None:
    """The first thing a worker does: an interrupt from the keyboard is its feeder's alone, and it ends with it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_feeder, daemon=True).start()
    without_pandas()
    if orders is not None:
        with contextlib.suppress(DistillError):
            _built(pickle.dumps(orders)).prepare()
    gc.freeze()


def done(function: Callable[..., Any], arguments: tuple[Any, ...]) -> Reply:
    """What comes of a piece of work."""
    try:
        found = function(*arguments)
    except DistillError as error:
        found = Failed(type(error), dict(error.__dict__))
    except MemoryError:
        os._exit(1)  # the feeder sees it
    return Reply(found, os.getpid(), time.process_time(), _LOADED, peak_memory())


def judge(orders: bytes, segment: Segment, rows: bytes, keep: bytes, evidence: list[str] | None) -> bytes:
    """What a segment says of a batch (see `Copies.judge`)."""
    return _built(orders).judge(segment, table_of(rows), keep, evidence)


def _built(orders: bytes) -> Copies:
    """The copies that orders ask for: those that are there, where only what they are calibrated to is new."""
    global _copies
    if _copies is None or _copies[0] != orders:
        wanted: Orders = pickle.loads(orders)  # noqa: S301  # from the process that started this one
        copies = Copies(wanted) if _copies is None or not _copies[1].renew(wanted) else _copies[1]
        _copies = (orders, copies)
    return _copies[1]


def _end_with_feeder() -> None:
    feeder = multiprocessing.parent_process()
    if feeder is not None:
        feeder.join()
        os._exit(1)
