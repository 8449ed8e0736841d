"""One batch between the ledger and its results: submitted once, recognised after a crash, watched to its end.

A batch that was written down and has no name of the provider's may exist or not: the process died, or the reply to its
submission was lost. It is looked for in the provider's list until `settle_s` after it was written down. OpenAI's
batches carry our reference in their metadata. Anthropic's carry nothing: an ended one is recognised by the custom ids
in its results, and while one with the right number of requests is still running, it is waited for. Until then nothing
of it is sent again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import TypeVar

from distill.errors import DistillError, FailureClass, Halted, RunError, TeacherError
from distill.gateway.batch.batching import Asked, Batching
from distill.gateway.batch.ledger import Entry
from distill.gateway.desk import Desk
from distill.gateway.ending import Ending
from distill.gateway.retries import TRANSIENT
from distill.teachers import Batch, BatchTeacher

__all__ = ["Courier"]

T = TypeVar("T")

_SKEW_S = 1800.0  # by which the provider's clock may differ from ours
_OUTAGE_S = 900.0
_LONGEST_S = 60.0


class Courier:
    """For one teacher. Methods raise `RunError` or `Halted` where the run must end."""

    def __init__(
        self,
        desk: Desk,
        batching: Batching,
        ending: Ending,
        *,
        clock: Callable[[], float],
        sleep: Callable[[float], Awaitable[None]],
    ) -> None:
        self._desk = desk
        self._teacher: BatchTeacher = batching.teachers[desk.name]
        self._batching = batching
        self._ledger = batching.ledger
        self._ending = ending
        self._clock = clock
        self._sleep = sleep

    async def submit(self, entry: Entry, asked: Sequence[Asked]) -> Entry | None:
        """Bring a batch that is written down to the provider; None when it was not, and never will be."""
        at = self._batching.at
        path = self._ledger.folder / f"{entry.ref}.jsonl"
        try:
            await asyncio.to_thread(self._write, path, entry.ref, asked)
            at("intended")
            if self._ending.soft is not None:
                return None
            handle = await self._patiently(lambda: self._teacher.upload(path))
            at("uploaded")
            began, wait = self._clock(), 1.0
            while self._ending.soft is None:
                at("creating")
                batch: Batch | None = None
                try:
                    batch = await self._teacher.create(path, handle, entry.ref)
                except TeacherError as error:
                    if error.status is None or error.status >= 500 or error.failure is FailureClass.TIMEOUT:
                        batch = await self.find(entry)  # it may have arrived
                    wait = await self._pause(error, began, wait) if batch is None else wait
                if batch is not None:
                    at("created")
                    entry = await self._ledger.submitted(entry, batch.id)
                    at("submitted")
                    return entry
            return None
        finally:
            path.unlink(missing_ok=True)

    async def find(self, entry: Entry) -> Batch | None:
        """The provider's batch for an entry without a name, or None: it does not exist."""
        wait = self._batching.first_poll_s
        while True:
            batches = await self._patiently(lambda: self._teacher.recent(entry.created - _SKEW_S))
            known = await asyncio.to_thread(self._ledger.known)
            undecided = False
            for batch in batches:
                if batch.id in known:
                    continue
                if batch.tag is not None:
                    if batch.tag == entry.ref:
                        return batch
                elif batch.total == entry.requests:
                    if not batch.ended:
                        undecided = True
                    elif await self._is(batch, entry):
                        return batch
            settled = self._batching.wall() > entry.created + self._batching.settle_s
            if settled and not undecided:
                return None
            await self._sleep(wait)
            wait = min(wait * 1.5, self._desk.config.batch.poll_s)

    async def follow(self, entry: Entry) -> Batch:
        """Wait for the batch's end."""
        wait = self._batching.first_poll_s
        while True:
            try:
                batch = await self._patiently(lambda: self._teacher.look(entry.batch))
            except RunError as error:
                raise RunError(
                    f"batch {entry.batch} ({entry.requests} requests, {entry.account}) cannot be looked at: "
                    f"{error.message}",
                    hint="Use the key of the project that submitted it. To give it up, and its answers with it, remove "
                    f"{self._ledger.path}; its requests are then sent again.",
                ) from None
            if batch.ended:
                return batch
            self._batching.at("polled")
            await self._sleep(wait)
            wait = min(wait * 1.5, self._desk.config.batch.poll_s)

    async def fetch(self, entry: Entry, batch: Batch) -> Path:
        """The results on this disk; whoever reads them removes the file."""
        path = self._ledger.folder / f"{entry.ref}.results"
        await self._patiently(lambda: self._teacher.fetch(batch, path))
        self._batching.at("downloaded")
        return path

    async def cancel(self, entry: Entry) -> None:
        """Break a batch off; it ends soon after, with what was carried out."""
        try:
            await self._teacher.cancel(entry.batch)
        except TeacherError as error:
            if error.status is None or error.status >= 500:
                raise
            # It has ended meanwhile.

    def _write(self, path: Path, ref: str, asked: Sequence[Asked]) -> None:
        before, between, after = self._teacher.frame
        with path.open("wb") as file:
            file.write(before)
            for number, one in enumerate(asked):
                if one.wire is None:
                    raise RuntimeError("a question without its wire cannot be sent")
                if number:
                    file.write(between)
                file.write(self._teacher.line(f"{ref}-{one.member.key}", one.wire))
            file.write(after)

    async def _is(self, batch: Batch, entry: Entry) -> bool:
        named = await self._patiently(lambda: self._teacher.first_id(batch))
        return named is not None and named.partition("-")[0] == entry.ref

    async def _patiently(self, call: Callable[[], Awaitable[T]]) -> T:
        """What costs nothing is tried again, through an outage of a quarter of an hour."""
        began, wait = self._clock(), 1.0
        while True:
            try:
                return await call()
            except TeacherError as error:
                wait = await self._pause(error, began, wait)

    async def _pause(self, error: TeacherError, began: float, wait: float) -> float:
        """Wait after a failed call; returns how long to wait after the next one. Raises where waiting cannot help."""
        end: DistillError | None = self._desk.verdict(error)
        where = f"the batch API of teacher {self._desk.name} ({self._desk.config.model})"
        if end is None and error.failure not in TRANSIENT:
            end = RunError(
                f"{where} refused: {error.message}",
                hint="Does this endpoint have a batch API? `mode: online` asks without it.",
            )
        if end is None and self._clock() - began > _OUTAGE_S:
            end = Halted(
                f"{where} has not worked for {_OUTAGE_S / 60:g} minutes: {error.message}",
                hint="Batches under way go on at the provider. The same command picks them up.",
            )
        if end is not None:
            raise end
        await self._sleep(max(wait, error.retry_after or 0.0))
        return min(wait * 2, _LONGEST_S)
