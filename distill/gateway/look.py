"""What the store says to a question."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from distill.errors import AnswerError, FailureClass, UnreadableText
from distill.gateway.calls import read
from distill.gateway.desk import Desk
from distill.gateway.money import usd
from distill.gateway.retries import PERMANENT
from distill.gateway.store import AnswerStore, Record
from distill.gateway.store.keys import request_key
from distill.teachers import Answer, Reading, Reply, Request

__all__ = ["Look", "Shelf"]


class Look(NamedTuple):
    """A question to one teacher, and the answer that stands in the store."""

    desk: Desk
    request: Request
    wire: Mapping[str, Any]
    key: str
    size: int
    sample: int
    answer: Answer | None
    stale: bool
    """Something stands in the store that is to be replaced."""


class Shelf:
    """The store, as one run reads it."""

    def __init__(self, store: AnswerStore, run: str) -> None:
        self._store = store
        self._run = run

    def look(self, desk: Desk, request: Request, sample: int) -> Look:
        """The question as it would be sent, and its answer where it has one.

        Raises:
            TeacherError: a refusal stands there, or the question does not fit the model's window.
            AnswerError: the answer, or the question, holds text that no file can hold.
        """
        wire = desk.teacher.wire(request, sample)
        try:
            key, size = request_key(desk.teacher.provider, wire, sample)
        except UnreadableText as error:
            raise AnswerError(FailureClass.UNREADABLE, f"the prompt cannot be sent: {error.message}") from None
        stored = self._store.get(key) or desk.unproven.get(key)
        answer = self._replay(desk, stored) if stored is not None else None
        if answer is None and desk.window is not None:
            problem = desk.window.problem(request, size)
            if problem is not None:
                problem.teacher = desk.name
                raise problem
        return Look(desk, request, wire, key, size, sample, answer, stale=stored is not None)

    def answer(self, desk: Desk, record: Record, reading: Reading) -> Answer:
        """What the asker gets."""
        return Answer(
            text=reading.text,
            reasoning=reading.reasoning,
            finish=reading.finish,
            usage=reading.usage,
            cost=usd(record.cost_pico),
            key=record.key,
            teacher=desk.name,
            model=reading.model or record.model,
            reused=record.run != self._run,
        )

    def _replay(self, desk: Desk, record: Record) -> Answer | None:
        """A stored answer, read anew; None when it turns out to be nothing that should have been stored."""
        if not record.finish:  # a refusal
            failure = desk.teacher.failure(Reply(record.status, record.body))
            if failure is not None:
                if failure.failure not in PERMANENT:
                    return None
                failure.stored = True
                failure.teacher = desk.name
                self._count(desk, record)
                raise failure
        self._count(desk, record)
        return self.answer(desk, record, read(desk, record.body, record.key))

    def _count(self, desk: Desk, record: Record) -> None:
        if record.run == self._run:
            desk.stats.replayed += 1
        else:
            desk.stats.reused += 1
