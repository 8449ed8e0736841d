"""Every error a user of distill can meet, in one tree.

    DistillError
    ├── InputError            what the user wrote is wrong: recipe, taxonomy, prompt, data file   exit 2
    │   └── UnreadableText    text that no file could give back exactly (lone surrogate, NaN)
    ├── RunError              the run could not go on: disk full, damaged store, a locked run     exit 1
    │   ├── RunLocked         another process writes this run directory
    │   └── StoreDamaged      the answer store cannot be read
    ├── Halted                the run stopped by itself and can be continued                      exit 3
    │   └── BudgetReached     the next request could pass the cap
    ├── GateFailed            a gate of the recipe failed                                         exit 4
    └── TeacherError          one request failed; carries its `FailureClass`, becomes a row's fate

A failed request is data, not a crash: methods let `TeacherError` and `AnswerError` pass, and the engine
turns them into the fate of the slot. Everything else is a fault of the program and is not caught.
"""

from __future__ import annotations

import asyncio
from enum import StrEnum
from pathlib import Path
from typing import Any

__all__ = [
    "AnswerError",
    "BudgetReached",
    "DistillError",
    "FailureClass",
    "GateFailed",
    "Halted",
    "InputError",
    "RunError",
    "RunLocked",
    "StoreDamaged",
    "TeacherError",
    "UnreadableText",
    "first_of",
]


class FailureClass(StrEnum):
    """Why a request, or the slot that made it, produced no row. The value is what reports and JSON show."""

    RATE_LIMITED = "rate_limited"  # 429 until the retries were used up
    OVERLOADED = "overloaded"  # 500, 502, 503, 529 until the retries were used up
    TIMEOUT = "timeout"
    CONNECTION = "connection"  # refused, reset, closed in the middle of a body
    MALFORMED = "malformed"  # a 200 that is not the provider's JSON: cut short, HTML, wrong type
    AUTH = "auth"  # 401, 403: stops the run
    QUOTA = "quota"  # the account has no money left: stops the run
    BAD_REQUEST = "bad_request"  # 400, 404, 413, 422: the same request will never work
    CONTEXT = "context"  # prompt and answer do not fit the model's context window
    FILTERED = "filtered"  # the provider's content filter
    REFUSED = "refused"  # the model declined
    EMPTY = "empty"  # an answer without text or without choices
    LENGTH = "length"  # max_tokens reached before the end
    UNREADABLE = "unreadable"  # text with lone surrogates or the like
    UNPARSED = "unparsed"  # the answer does not hold the structure that was asked for
    UNVERIFIED = "unverified"  # no sample passed the method's check
    TIE = "tie"  # judges saw no difference, or disagreed with themselves
    CRASHED = "crashed"  # the local engine died


class DistillError(Exception):
    """Base of all. `hint` says what to do next; the CLI prints both and no traceback."""

    exit_code = 1

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.details: dict[str, Any] = {}
        """What `--json` prints beside the message: the summary of a run that failed half way."""

    def __str__(self) -> str:
        return f"{self.message}\n  {self.hint}" if self.hint else self.message


class InputError(DistillError):
    """Something the user wrote is wrong. Says where: file, line, field."""

    exit_code = 2

    def __init__(
        self,
        message: str,
        *,
        path: Path | str | None = None,
        line: int | None = None,
        field: str | None = None,
        hint: str | None = None,
    ) -> None:
        where = ":".join(str(part) for part in (path, line) if part is not None)
        parts = [part for part in (where, field, message) if part]
        super().__init__(": ".join(parts), hint=hint)
        self.path, self.line, self.field = path, line, field


class UnreadableText(InputError):
    """Text that could not be written to a file and read back unchanged."""


class RunError(DistillError):
    """The run cannot go on, through no fault of the recipe."""


class RunLocked(RunError):
    """Another process is writing this run directory."""


class StoreDamaged(RunError):
    """The answer store cannot be opened or fails its check."""


class Halted(DistillError):
    """The run ended before its target for a stated reason; the same command continues it."""

    exit_code = 3


class BudgetReached(Halted):
    """The next request could pass the cap, so it was not sent."""


class GateFailed(DistillError):
    """A gate of the recipe did not hold."""

    exit_code = 4


class TeacherError(DistillError):
    """One request failed.

    `retry_after` is in seconds when the provider named a time. `daily` says that it spoke of a quota by the
    day. `stored` marks a permanent refusal that stands in the answer store, and is answered from there next time.
    `teacher` is who was asked last, by the recipe's name.
    """

    def __init__(
        self,
        failure: FailureClass,
        message: str,
        *,
        status: int | None = None,
        retry_after: float | None = None,
        daily: bool = False,
        stored: bool = False,
    ) -> None:
        super().__init__(message)
        self.failure = failure
        self.status = status
        self.retry_after = retry_after
        self.daily = daily
        self.stored = stored
        self.teacher = ""


class AnswerError(DistillError):
    """An answer came, was paid and stored, and holds no usable row. `raw` keeps its text for the fate.
    `teacher` is who gave it, by the recipe's name."""

    def __init__(self, failure: FailureClass, message: str, *, raw: str = "", keys: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.failure = failure
        self.raw = raw
        self.keys = keys
        self.teacher = ""


def first_of(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The error that a group of tasks ended with: its first leaf that is not a cancellation."""
    leaves: list[BaseException] = []
    left: list[BaseException] = [group]
    while left:
        error = left.pop(0)
        if isinstance(error, BaseExceptionGroup):
            inner: tuple[BaseException, ...] = error.exceptions  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
            left[:0] = inner
        else:
            leaves.append(error)
    return next((error for error in leaves if not isinstance(error, asyncio.CancelledError)), leaves[0])
