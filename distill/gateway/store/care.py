"""What people do with an answer store: count, check, remove, unite. Runs never come here.

`StoreCare` is what a database offers for it (`SqliteCare`, `PostgresCare`); the functions work on either. All of it may
happen while runs use the store: every step is a transaction, and a step that was cut off is done by doing all again.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

import orjson

from distill.errors import DistillError, StoreDamaged
from distill.gateway.store.base import Record
from distill.gateway.store.keys import request_key

__all__ = ["Checked", "Entry", "Flaw", "RunLine", "StoreCare", "Tally", "United", "check", "unite"]

_AT_ONCE = 500


class Entry(NamedTuple):
    """One answer with what was asked; `sound`: its body is what was stored."""

    record: Record
    sound: bool


class Tally(NamedTuple):
    """The answers that one run paid to one model. `bytes` are those of the bodies."""

    provider: str
    model: str
    run: str
    answers: int
    refusals: int
    input: int
    output: int
    pico: int
    bytes: int


class RunLine(NamedTuple):
    """What a run paid, may have lost, and has under way, as the store's books say."""

    run: str
    answers: int
    pico: int
    input: int
    output: int
    lost_pico: int
    lost_tokens: int
    exposed_pico: int
    exposed_tokens: int


class StoreCare(Protocol):
    """A store as its keeper sees it. Opened for one task, closed after it."""

    @property
    def where(self) -> str:
        """The file or the server, for people."""
        ...

    def size(self) -> int:
        """Bytes on disk."""
        ...

    def tallies(self) -> list[Tally]:
        """By model and run."""
        ...

    def ledger(self) -> list[RunLine]:
        """The books."""
        ...

    def flaws(self) -> list[str]:
        """What the database finds wrong with itself."""
        ...

    def entries(self) -> Iterator[Entry]:
        """Every answer, in the order in which they were stored.

        Raises:
            StoreDamaged: it cannot be read to its end.
        """
        ...

    def paid_by(self, run: str) -> Iterator[tuple[bytes, int, int]]:
        """Key, bytes and pico-USD of every answer that `run` paid."""
        ...

    def remove(self, keys: Sequence[bytes]) -> int:
        """Answers and what was asked, in one transaction; returns how many were there."""
        ...

    def absorb(self, records: Sequence[Record]) -> int:
        """Store answers that are not there, in one transaction, without counting their money; returns how many."""
        ...

    def enter(self, lines: Iterable[RunLine]) -> None:
        """Raise the books of runs to what `lines` say; nothing is added up. What is under way there counts as lost."""
        ...

    def balance(self) -> None:
        """Raise the books of every run to the sum of its answers, where they say less."""
        ...

    def compact(self) -> None:
        """Give the room of removed answers back.

        Raises:
            RunError: somebody else uses the store, or the disk is too full.
        """
        ...

    def close(self) -> None:
        """Safe to call twice."""
        ...


@dataclass(frozen=True, slots=True)
class Flaw:
    """One answer that is not what it says."""

    record: Record
    why: str


@dataclass(slots=True)
class Checked:
    """What `check` found. `proven`: answers whose key is the digest of the stored request."""

    answers: int = 0
    proven: int = 0
    flaws: list[Flaw] = field(default_factory=list[Flaw])
    damage: list[str] = field(default_factory=list[str])
    """Of the database as a whole."""

    @property
    def sound(self) -> bool:
        return not self.flaws and not self.damage


def check(care: StoreCare) -> Checked:
    """Read everything: every body against its checksum, every key against the request it is the digest of."""
    found = Checked(damage=care.flaws())
    try:
        for entry in care.entries():
            found.answers += 1
            why = _why(entry)
            if why:
                found.flaws.append(Flaw(entry.record, why))
            elif entry.record.request:
                found.proven += 1
    except StoreDamaged as error:
        found.damage.append(error.message)
    return found


def _why(entry: Entry) -> str:
    record = entry.record
    if not entry.sound:
        return "the body is not what was stored (checksum)"
    if record.request:
        try:
            key, _ = request_key(record.provider, orjson.loads(record.request), record.sample)
        except (ValueError, DistillError):
            return "the stored request cannot be read"
        if key != record.key:
            return "the key is not the digest of the stored request"
    return ""


@dataclass(slots=True)
class United:
    """What `unite` brought."""

    added: int = 0
    present: int = 0
    """Answered already: the first answer stays."""
    damaged: int = 0
    """Not taken over."""


def unite(target: StoreCare, source: StoreCare) -> United:
    """Bring the answers of `source` into `target`. An answer that stands there stays; doing it again changes nothing.

    A run's books become the larger of the two, never their sum: they may speak of the same answers. They come first:
    a union that is cut off half way knows of too much money, not of too little.
    """
    result = United()
    target.enter(source.ledger())
    batch: list[Record] = []

    def store() -> None:
        added = target.absorb(batch)
        result.added += added
        result.present += len(batch) - added
        batch.clear()

    for entry in source.entries():
        if not entry.sound:
            result.damaged += 1
            continue
        batch.append(entry.record)
        if len(batch) >= _AT_ONCE:
            store()
    if batch:
        store()
    target.balance()
    return result
