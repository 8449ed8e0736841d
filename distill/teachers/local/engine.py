"""What an engine is: something on this machine that answers chat completions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from distill.teachers.base import Reply

__all__ = ["Engine"]


class Engine(Protocol):
    """Runs one model's weights. `slots` is how many requests it works on at once; more wait their turn."""

    name: str
    slots: int

    async def start(self) -> None:
        """Load the weights.

        Raises:
            RunError: it could not be started.
        """
        ...

    async def send(self, wire: Mapping[str, Any], *, timeout: float) -> Reply:  # noqa: ASYNC109 - part of the contract
        """Answer one request, as `Teacher.send` does."""
        ...

    async def close(self) -> None:
        """Free what it holds; safe to call twice."""
        ...
