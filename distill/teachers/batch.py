"""What is said to a provider's batch API: many requests in one file, results within a day, at half the price.

A batch teacher speaks that wire and nothing else: what goes into a batch, what is written down before it is sent, how
often one looks, and what becomes of the results is the gateway's business. What the two providers share stands in
`batch_http.py`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from distill.teachers.base import Reply

__all__ = ["Batch", "BatchTeacher", "Result"]


@dataclass(frozen=True, slots=True)
class Batch:
    """A batch as the provider describes it."""

    id: str
    ended: bool
    status: str
    """The provider's own word: completed, expired, cancelled, failed, in_progress, …"""
    total: int
    created: float
    """Unix time."""
    tag: str | None = None
    """What we wrote on it, where the provider lets us."""
    files: tuple[str, ...] = ()
    """Where its results lie, where they are files."""
    problem: str = ""
    """Why nothing of it was carried out."""
    passing: bool = False
    """The problem is one of the moment: too much is queued."""


class Result(NamedTuple):
    """What became of one request. No reply: it was not carried out, and not billed; `why` says the reason."""

    custom_id: str
    reply: Reply | None
    why: str = ""


class BatchTeacher(Protocol):
    """The batch API of one model's provider. All methods raise `TeacherError` where the provider cannot be asked."""

    @property
    def account(self) -> str:
        """Provider and host: whose batches these are."""
        ...

    @property
    def most_requests(self) -> int: ...

    @property
    def most_bytes(self) -> int: ...

    @property
    def frame(self) -> tuple[bytes, bytes, bytes]:
        """What stands before, between and after the lines of an input file."""
        ...

    def line(self, custom_id: str, wire: Mapping[str, Any]) -> bytes:
        """One request, as it stands in the input."""
        ...

    async def upload(self, path: Path) -> str:
        """Bring the input to the provider, where that is a step of its own; what names it there, or an empty text.
        Costs nothing."""
        ...

    async def create(self, path: Path, handle: str, tag: str) -> Batch:
        """Submit. From here on it costs money."""
        ...

    async def look(self, batch_id: str) -> Batch:
        """How it stands."""
        ...

    async def cancel(self, batch_id: str) -> None:
        """Ask the provider to break it off. What was carried out by then is billed, and can be fetched."""
        ...

    async def recent(self, since: float) -> list[Batch]:
        """Batches of the account created since that Unix time."""
        ...

    async def fetch(self, batch: Batch, target: Path) -> None:
        """Write the results of an ended batch to a file."""
        ...

    def results(self, path: Path) -> Iterator[Result]:
        """The results in such a file, in the provider's order, which is none. Lines that cannot be read are left
        out."""
        ...

    async def first_id(self, batch: Batch) -> str | None:
        """The custom id of one of an ended batch's requests: whose it is, where it carries no tag."""
        ...

    async def start(self) -> None: ...

    async def close(self) -> None: ...
