"""What every step of a filter chain shares."""

from __future__ import annotations

from pydantic import Field

from distill.recipe.base import Section

__all__ = ["NamedStep", "Step"]


class NamedStep(Section):
    name: str | None = Field(default=None, pattern=r"^[A-Za-z][A-Za-z0-9_-]*$")
    """Name in reports; left out: the kind, numbered when it comes twice."""


class Step(NamedStep):
    fields: tuple[str, ...] = ()
    """Columns that count: any text column, or `prompt`, `response`, `messages` for the parts of a conversation.
    Left out: the whole row's text."""
