"""The answer store as the gateway sees it: put, get, and what was spent.

`SqliteStore` keeps it in a file of the workspace, `PostgresStore` on a server; another database needs these methods and
nothing else. What people do with a store, `distill.gateway.store.care` does.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import NamedTuple, Protocol

from distill.gateway.budget import Amount
from distill.gateway.money import usd

__all__ = ["AnswerStore", "Record", "Spent", "StoreStats"]


class Record(NamedTuple):
    """One answer as stored: the raw body, and what it cost the run that paid for it."""

    key: str
    provider: str
    model: str
    sample: int
    status: int
    body: bytes
    input: int
    output: int
    cached: int
    cache_write: int
    reasoning: int
    cost_pico: int
    finish: str
    """Empty: a permanent refusal."""
    run: str
    created: float
    """Unix time."""
    request: bytes = b""
    """The wire payload as canonical JSON: what the key is a digest of. Stored beside the answer, for people and for
    `distill answers verify`; `get` leaves it empty."""

    @property
    def cost(self) -> Decimal:
        """USD."""
        return usd(self.cost_pico)

    @property
    def amount(self) -> Amount:
        return Amount(self.cost_pico, self.input + self.output)


class Spent(NamedTuple):
    """What a run paid for answers, over all its sessions."""

    usd: Decimal
    tokens: int


@dataclass(frozen=True, slots=True)
class StoreStats:
    """What stands in a store."""

    answers: int
    refusals: int
    bytes: int
    cost: Decimal
    tokens: int
    models: dict[str, int]


class AnswerStore(Protocol):
    """Durable answers by key. Methods without `async` are fast enough for the event loop."""

    def get(self, key: str) -> Record | None:
        """The answer, or None."""
        ...

    async def put(self, record: Record, *, replace: bool = False) -> Record:
        """Returns once the answer is on disk: `record`, or the one that already stood there (the first one wins).

        Raises:
            RunError: it could not be written now. The store keeps the record in memory and goes on trying.
        """
        ...

    def lose(self, run: str, amount: Amount) -> None:
        """Note, without waiting, what a call without an answer may have cost."""
        ...

    async def expose(self, run: str, amount: Amount) -> None:
        """Returns once it is on disk that calls worth at most `amount` may be under way. A session that ends without
        setting it back to nothing has lost that much: see `recover`.

        Raises:
            RunError: it could not be written.
        """
        ...

    def relax(self, run: str, amount: Amount) -> None:
        """Lower, without waiting and after everything queued so far, what `expose` has set."""
        ...

    def recover(self, run: str) -> Amount:
        """Called once when a session of `run` begins: what an earlier one left exposed is lost from now on, and
        returned."""
        ...

    def spent(self, run: str) -> Spent:
        """What the run paid for answers."""
        ...

    def amounts(self, run: str) -> tuple[Amount, Amount]:
        """What the run paid for answers, and what lost calls may have cost, exactly."""
        ...

    def used_since(self, provider: str, model: str, since: float) -> list[tuple[float, str, int, int]]:
        """What a model has answered from Unix time `since` on, in slices of ten minutes: when the slice begins (in
        order), the run, answers, tokens. Quotas by the day are counted from it."""
        ...

    def stats(self) -> StoreStats:
        """Counts and sums over all runs."""
        ...

    def size(self) -> int:
        """Bytes that the store takes on disk."""
        ...

    @property
    def unsaved(self) -> int:
        """Records that still wait for the disk."""
        ...

    async def flush(self, timeout: float) -> int:  # noqa: ASYNC109 - says how long to be patient
        """Wait until everything is on disk; a disk that refuses is given up after `timeout` seconds. Returns the number
        of answers that are not stored."""
        ...

    def close(self) -> None:
        """Write what is left and let go; safe to call twice."""
        ...
