# pyright: reportUnknownMemberType=false
# torch is only partly typed.
"""How long work takes on a machine that others use too: what it costs the processor, and at what pace that is paid.

The clock on the wall says little about a piece of work of a tenth of a second beside others: it may have waited for all
of that time, or for none. What it cost the processor is nearly the same on a busy machine, and can be multiplied. The
pace at which that is paid is measured beside it, and told as an interval.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

__all__ = ["Clock", "Duration"]


@dataclass(frozen=True)
class Duration:
    """How long a training may take, in seconds."""

    usual: float
    """At the mean pace of what was timed."""
    least: float
    """With all cores to itself."""
    most: float
    """At the slowest pace that was seen."""
    processor: float | None
    """The processor's own seconds, over all cores; None on a GPU."""


class Clock:
    """Times pieces of work by the processor's time, which a busy machine changes little, and remembers how much longer
    than that they took."""

    def __init__(self, cpu: bool) -> None:
        self._cpu = cpu
        self._paces: list[tuple[float, float]] = []

    def fastest(self, work: Callable[[], Any], tries: int) -> float:
        """Processor's seconds (a GPU's: the clock's) of the fastest of `tries`."""
        import torch

        times: list[float] = []
        for number in range(tries + 1):
            begun, used = time.perf_counter(), time.process_time()
            work()
            if not self._cpu:
                torch.cuda.synchronize()
            wall, spent = time.perf_counter() - begun, time.process_time() - used
            if number:  # the first one pays for what is set up once
                times.append(spent if self._cpu else wall)
                self._paces.append((wall, times[-1]))
        return min(times)

    def duration(self, work: float) -> Duration:
        """What `work` seconds take at the pace that was seen."""
        import torch

        pace = sum(wall for wall, _ in self._paces) / sum(spent for _, spent in self._paces)
        slowest = max(wall / spent for wall, spent in self._paces)
        fastest = 1 / torch.get_num_threads() if self._cpu else 1.0
        return Duration(work * pace, work * min(fastest, pace), work * slowest, work if self._cpu else None)
