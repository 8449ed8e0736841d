"""How a run ends before its target: softly or hard, once, for one stated reason.

Softly (a drain, a budget, the hours): nothing more is sent; what is under way is finished, stored and delivered.
Hard (no key, no quota, a dead server, a full disk): besides, everybody who asks learns the reason at once.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import TypeVar

from distill.errors import DistillError

__all__ = ["Ending", "fresh"]

_Error = TypeVar("_Error", bound=DistillError)


class Ending:
    """The first reason of each kind stays the reason."""

    def __init__(self) -> None:
        self.soft: DistillError | None = None
        self.hard: DistillError | None = None
        self.on_soft: Callable[[DistillError], None] = lambda error: None
        """Called whenever somebody may have begun to wait for a turn that will not come."""
        self.on_hard: Callable[[DistillError], None] = lambda error: None

    def end(self, error: DistillError) -> None:
        """Send nothing more."""
        self.soft = self.soft or error
        self.on_soft(error)

    def stop(self, error: DistillError) -> None:
        """Send nothing more, and deliver nothing more."""
        if self.hard is None:
            self.hard = error
            self.on_hard(error)
        self.end(error)

    def check(self) -> None:
        """Raise the reason, if nothing more may be sent."""
        error = self.hard or self.soft
        if error is not None:
            raise fresh(error)


def fresh(error: _Error) -> _Error:
    """A copy to raise: one exception object raised a thousand times keeps a thousand frames alive."""
    return copy.copy(error)
