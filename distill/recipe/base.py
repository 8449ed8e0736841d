"""What every section of a recipe shares: frozen, nothing unknown accepted, one docstring a field."""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict

__all__ = ["Section"]


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, protected_namespaces=())

    FURTHER: ClassVar[Any] = None
    """What keys beyond the fields hold, in the few sections that take names of the user's own."""
