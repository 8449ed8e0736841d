"""One question on its way to a teacher."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from distill.errors import TeacherError
from distill.gateway.desk import Desk
from distill.gateway.routing import Way
from distill.teachers import Request

__all__ = ["Call", "Elsewhere"]


@dataclass(slots=True)
class Call:
    """One question on its way. `future` is what those who asked wait for."""

    desk: Desk
    request: Request
    wire: Mapping[str, Any]
    key: str
    sample: int
    size: int
    future: asyncio.Future[Any]
    replace: bool = False
    way: Way | None = None
    """Where else the question may go: it was put to a group."""


class Elsewhere(Exception):
    """Another teacher of the group is to be asked. `error` is what this one said, where it was asked at all."""

    def __init__(self, error: TeacherError | None = None) -> None:
        super().__init__("ask another teacher of the group")
        self.error = error
