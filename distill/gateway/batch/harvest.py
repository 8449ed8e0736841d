"""Results become answers: stored before anybody sees them, whoever asked, and counted as online ones are."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

from distill.errors import AnswerError, DistillError, FailureClass, RunError, TeacherError, first_of
from distill.gateway.account import Account
from distill.gateway.batch.batching import Asked, Batching, discounted
from distill.gateway.batch.ledger import Entry
from distill.gateway.budget import Amount
from distill.gateway.calls import read
from distill.gateway.desk import Desk
from distill.gateway.retries import TRANSIENT, may_be_billed
from distill.gateway.stats import EventKind
from distill.gateway.store import AnswerStore, Record
from distill.teachers import Reading, Reply, Result, Usage

__all__ = ["Harvest"]

_CHUNK = 512
_FINAL = (200, 400, 413, 422, 429)
"""Statuses of a bad request that would be refused again."""


class Harvest:
    """For one teacher."""

    def __init__(
        self,
        desk: Desk,
        store: AnswerStore,
        account: Account,
        batching: Batching,
        *,
        run: str,
        say: Callable[[EventKind, str], None],
    ) -> None:
        self._desk = desk
        self._store = store
        self._account = account
        self._batching = batching
        self._run = run
        self._tariff = discounted(desk.tariff, desk.config.batch.discount)
        self._say = say
        self.verdict: DistillError | None = None
        """The end of the run, when a result means that."""

    async def bring_in(self, entry: Entry, path: Path, asked: dict[str, Asked]) -> tuple[int, dict[str, TeacherError]]:
        """Store every answer in a results file and hand it to whoever waits. Returns their number, and the keys of
        the questions that have none, each with the reason.

        Raises:
            RunError: the store refuses. The batch stays open, and is read again.
        """
        left = dict(asked)
        again: dict[str, TeacherError] = {}
        refused: list[tuple[Asked, Reply, TeacherError]] = []
        kept = 0
        results = self._batching.teachers[self._desk.name].results(path)
        while chunk := await asyncio.to_thread(lambda: list(itertools.islice(results, _CHUNK))):
            good: list[tuple[Asked, Reply]] = []
            for result in chunk:
                key = _key(result, entry)
                one = left.pop(key, None)
                if one is None:  # a line that stands twice, or is not ours
                    continue
                reply = result.reply
                if reply is None:
                    again[key] = TeacherError(FailureClass.OVERLOADED, f"the batch ended first: {result.why}")
                    continue
                self._desk.stats.by_status[reply.status] += 1
                failure = self._desk.teacher.failure(reply)
                if failure is None:
                    good.append((one, reply))
                elif failure.failure in (FailureClass.FILTERED, FailureClass.CONTEXT) or (
                    failure.failure is FailureClass.BAD_REQUEST and reply.status in _FINAL
                ):
                    refused.append((one, reply, failure))
                else:
                    self._failed(one, reply, failure)
                    again[key] = failure
            kept += len(good)
            await self._store_all(entry, good)
            self._batching.at("stored")
        if kept:
            self._desk.circuit.answered()
        for one, reply, failure in refused:
            await self._keep_refusal(entry, one, reply, failure)
        again |= {key: TeacherError(FailureClass.OVERLOADED, "the batch brought no result") for key in left}
        return kept, again

    async def _store_all(self, entry: Entry, good: list[tuple[Asked, Reply]]) -> None:
        try:
            async with asyncio.TaskGroup() as group:
                for one, reply in good:
                    group.create_task(self._keep(entry, one, reply))
        except* RunError as errors:
            raise first_of(errors) from None

    async def _keep(self, entry: Entry, one: Asked, reply: Reply) -> None:
        desk, member = self._desk, one.member
        reading: Reading | None = None
        unreadable: AnswerError | None = None
        try:
            reading = read(desk, reply.body, member.key)
        except AnswerError as error:
            unreadable = error
        usage = Usage() if reading is None else reading.usage
        pico = 0 if self._tariff is None else self._tariff.cost(usage)
        record = self._record(entry, one, reply, usage, pico, "unreadable" if reading is None else reading.finish)
        standing = self._store.get(member.key)
        if standing is None or standing.body != record.body:
            # Not what an earlier session stored of the same results before it was killed.
            desk.stats.count(usage, pico, max(0.0, self._batching.wall() - entry.created))
            self._settle(one, Amount(pico, usage.total), known=reading is not None)
            self._batching.at("storing")
            standing = await self._store.put(record, replace=one.replace)
            self._say("answered", "")
        if reading is not None:
            desk.learn(member.size, usage, member.worst)
        future = one.future
        if future is not None and not future.done():
            if unreadable is not None:
                future.set_exception(unreadable)
            else:
                future.set_result((standing, reading if standing is record else None))

    def _settle(self, one: Asked, real: Amount, *, known: bool) -> None:
        if one.held:
            one.held = False
            if known:
                self._account.purse.settle(one.member.worst, real)
            else:  # it was paid, but how much cannot be read from it
                self._desk.stats.lost_pico += one.member.worst.pico
                self._account.purse.lose(one.member.worst)
                self._store.lose(one.run, one.member.worst)
        elif known and one.run == self._run:
            self._account.purse.spent += real

    def _failed(self, one: Asked, reply: Reply, failure: TeacherError) -> None:
        """One request failed in a way that may pass, or that ends the run."""
        self._desk.stats.by_failure[failure.failure.value] += 1
        self.verdict = self.verdict or self._desk.verdict(failure)
        if one.held and may_be_billed(failure, reply):
            self._desk.stats.lost_pico += one.member.worst.pico
            self._account.purse.lose(one.member.worst)
            self._store.lose(one.run, one.member.worst)
            one.held = False

    async def _keep_refusal(self, entry: Entry, one: Asked, reply: Reply, failure: TeacherError) -> None:
        desk = self._desk
        desk.stats.by_failure[failure.failure.value] += 1
        record = self._record(entry, one, reply, Usage(), 0, "")
        standing = self._store.get(one.member.key)
        if standing is not None and standing.body == record.body:
            pass  # an earlier session stored it and was killed
        elif desk.circuit.proven:
            await self._store.put(record, replace=one.replace)
        else:
            desk.unproven[one.member.key] = record
        failure.stored = True
        if one.held:
            self._account.purse.release(one.member.worst)
            one.held = False
        self.give_up(one, failure)

    def give_up(self, one: Asked, failure: TeacherError) -> None:
        """The question has no answer."""
        desk = self._desk
        desk.stats.failed += 1
        self._say("failed", f"{failure.failure.value}: {failure.message}")
        if failure.failure not in TRANSIENT or failure.status is not None:
            trip = desk.circuit.call_failed(failure)
            if trip is not None:
                desk.unproven.clear()
                self.verdict = self.verdict or desk.stop(trip)
        if one.future is not None and not one.future.done():
            one.future.set_exception(failure)
            one.future.exception()

    def _record(self, entry: Entry, one: Asked, reply: Reply, usage: Usage, pico: int, finish: str) -> Record:
        how: dict[str, Any] = {"key": one.member.key, "sample": one.member.sample, "wire": one.wire}
        return self._desk.record(reply, usage, pico, finish, run=entry.run, created=self._batching.wall(), **how)


def _key(result: Result, entry: Entry) -> str:
    ref, _, key = result.custom_id.partition("-")
    return key if ref == entry.ref else ""
