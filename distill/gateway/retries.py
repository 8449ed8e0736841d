"""Which failures are worth another attempt, after how long, and when a whole run should stop.

Waiting is exponential with full jitter (Brooker, "Exponential Backoff and Jitter", 2015): a uniform draw between zero
and a bound that doubles, so that calls which failed together do not come back together.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from distill.errors import FailureClass, TeacherError
from distill.teachers import Reply

__all__ = ["PERMANENT", "TRANSIENT", "Circuit", "Trip", "backoff", "may_be_billed"]

TRANSIENT = frozenset(
    {
        FailureClass.RATE_LIMITED,
        FailureClass.OVERLOADED,
        FailureClass.TIMEOUT,
        FailureClass.CONNECTION,
        FailureClass.MALFORMED,
        FailureClass.CRASHED,
    }
)
"""Another attempt may succeed."""
PERMANENT = frozenset({FailureClass.BAD_REQUEST, FailureClass.CONTEXT, FailureClass.FILTERED})
"""The same request will never succeed: an answer of its kind, and stored as one."""
_BY_THE_CLOCK = frozenset(
    {FailureClass.RATE_LIMITED, FailureClass.OVERLOADED, FailureClass.CONNECTION, FailureClass.MALFORMED}
)
_FIRST_S = 0.5
_LONGEST_S = 60.0
_LONGEST_UNPROVEN_S = 1.0
_ENOUGH = 10
_UNREACHABLE_S = 2.0
_SILENT_S = 30.0
_OUTAGE_S = 600.0
_WAITS = 3


def backoff(attempt: int, error: TeacherError, rng: random.Random, *, proven: bool) -> float:
    """Seconds to wait after failed attempt number `attempt` (from 1).

    A time that the provider named is kept, with a little on top so that not all come back at once. While a teacher has
    never answered, a broken connection is retried soon and given up soon: the address is probably wrong.
    """
    if error.retry_after is not None:
        return error.retry_after + rng.uniform(0, min(1.0, 0.1 * error.retry_after))
    longest = _LONGEST_S if proven or error.failure is not FailureClass.CONNECTION else _LONGEST_UNPROVEN_S
    return rng.uniform(0, min(longest, _FIRST_S * 2 ** min(attempt - 1, 10)))


def may_be_billed(error: TeacherError, reply: Reply | None) -> bool:
    """Whether the provider may have worked, and billed, for an attempt that brought no answer.

    A refusal says that it did not. A body that was cut short, a timeout, a connection lost after sending: it may.
    """
    if reply is not None:
        return error.failure in (FailureClass.MALFORMED, FailureClass.TIMEOUT)
    return error.failure is not FailureClass.CRASHED and not _never_connected(error)


@dataclass(frozen=True, slots=True)
class Trip:
    """Why a circuit opened."""

    failure: FailureClass
    count: int
    message: str
    proven: bool
    """The teacher had answered before."""
    by_the_clock: bool = False
    """`count` is of attempts, not of calls."""


class Circuit:
    """Opens when calls to a teacher fail for one reason and none succeeds: going on would only burn the plan.

    It counts calls that failed for good, all with the same failure class and nothing answered in between. A teacher
    that refuses or breaks every attempt is also given up by the clock, because pauses stretch its calls without end: an
    address that never connected after seconds, a teacher that never answered after half a minute, one that did answer
    before after `patience` seconds; and where it named a time to come back, not before it has been
    waited for three times.
    """

    def __init__(self, threshold: int = _ENOUGH, *, patience: float = _OUTAGE_S) -> None:
        self.proven = False
        self._patience = patience
        self._threshold = threshold
        self._failure: FailureClass | None = None
        self._calls = 0
        self._attempts_failure: FailureClass | None = None
        self._attempts = 0
        self._since = 0.0
        self._longest_wait = 0.0

    def answered(self) -> None:
        """A call succeeded."""
        self.proven = True
        self._calls = self._attempts = 0
        self._failure = self._attempts_failure = None

    def attempt_failed(self, error: TeacherError, now: float) -> Trip | None:
        """One attempt failed. Timeouts are left to `call_failed`: how long they take is the recipe's own choice."""
        if error.failure not in _BY_THE_CLOCK or error.failure is not self._attempts_failure:
            self._attempts_failure, self._attempts, self._since, self._longest_wait = error.failure, 0, now, 0.0
        self._attempts += 1
        self._longest_wait = max(self._longest_wait, error.retry_after or 0.0)
        if self._attempts < self._threshold or error.failure not in _BY_THE_CLOCK:
            return None
        patience = self._patience if self.proven else _SILENT_S
        if error.failure is FailureClass.CONNECTION and not self.proven:
            patience = _UNREACHABLE_S
        if now - self._since < max(patience, _WAITS * self._longest_wait):
            return None
        return Trip(error.failure, self._attempts, error.message, self.proven, by_the_clock=True)

    def call_failed(self, error: TeacherError) -> Trip | None:
        """A call failed for good."""
        self._calls = self._calls + 1 if error.failure is self._failure else 1
        self._failure = error.failure
        if self._calls >= self._threshold:
            return Trip(error.failure, self._calls, error.message, self.proven)
        return None


_BEFORE_SENDING = {"ConnectError", "ConnectTimeout", "ClientConnectorError", "ClientConnectorDNSError", "gaierror"}


def _never_connected(error: BaseException) -> bool:
    """Whether the connection failed before anything was sent, as far as the errors beneath it tell."""
    sent = getattr(error, "sent", None)
    if isinstance(sent, bool):
        return not sent
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, ConnectionRefusedError) or type(seen).__name__ in _BEFORE_SENDING:
            return True
        seen = seen.__cause__ or seen.__context__
    return False
