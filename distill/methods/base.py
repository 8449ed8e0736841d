"""A method turns one slot into rows and only calls `ask`.

Methods are pure: the same slot and the same answers give the same rows. That is why resuming is replaying.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from distill.dataset import Failure, Row
from distill.planning import Slot
from distill.teachers import Answer, Request

__all__ = ["Ask", "Method", "Prompt", "Prompts"]


class Ask(Protocol):
    """The one door to the teachers. Different `sample` numbers are independent draws of the same request.

    Raises:
        TeacherError: the request failed for good.
        Halted: the run is stopping; never caught by a method.
    """

    async def __call__(self, request: Request, *, sample: int = 0) -> Answer: ...


class Method(Protocol):
    """One distillation method, built once per run from its section of the recipe."""

    rows_per_slot: float
    """Rows that a slot makes when nothing goes wrong; plans the first round."""

    requests_per_slot: float
    """Requests that a slot makes when nothing goes wrong; for estimates."""

    async def __call__(self, slot: Slot, ask: Ask) -> list[Row | Failure]:
        """The rows of one slot, in a fixed order.

        Raises:
            AnswerError, TeacherError: the whole slot failed; the engine makes it one `Failure`.
        """
        ...


class Prompt(Protocol):
    """A prompt file, as methods use it. `distill.prompting` makes them."""

    @property
    def digest(self) -> str: ...

    @property
    def schema(self) -> Mapping[str, Any] | None: ...

    def render(self, slot: Slot, **extra: Any) -> str: ...

    def render_system(self, slot: Slot, **extra: Any) -> str | None: ...


class Prompts(Protocol):
    """The prompt files that a recipe names."""

    def get(self, name: str) -> Prompt: ...
