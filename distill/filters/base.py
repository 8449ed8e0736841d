"""The filter contract: a table in, one verdict a row out, same length and order.

A filter may hold state (an index of what it has kept): `judge` is called once a batch, in order, and a row is
compared with the rows before it, in this batch and in earlier ones. Results never depend on where batches end.

A few filters change rows besides: see `Rewriter`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from distill.errors import InputError

__all__ = [
    "Bookkeeping",
    "Calibrating",
    "Filter",
    "Meeting",
    "Persisting",
    "Preparing",
    "Remembering",
    "Reporting",
    "Rewriter",
    "Rewritten",
    "Sharing",
    "Verdicts",
    "naming",
]


@dataclass(frozen=True, slots=True)
class Verdicts:
    """Verdicts of one filter on n rows. Lists are empty text where a row is kept."""

    keep: NDArray[np.bool_]
    """Shape (n,)."""
    reason: list[str]
    """Reason code of a dropped row, a word or two in snake_case."""
    evidence: list[str]
    """What shows it, for a person: the matching text, the parse error."""
    matched_id: list[str]
    """Id of the row or eval item that it repeats."""
    score: NDArray[np.float64]
    """Shape (n,): the measured value (similarity, length); NaN where there is none."""
    numbers: NDArray[np.int64] | None = None
    """Shape (n,): the number under which a filter that hands on what it keeps remembers a row; -1 where it does not."""

    @classmethod
    def kept(cls, n: int) -> Verdicts:
        """Everything kept."""
        return cls(np.ones(n, bool), [""] * n, [""] * n, [""] * n, np.full(n, np.nan))

    def take(self, rows: NDArray[np.int64]) -> Verdicts:
        """The verdicts of some rows."""
        chosen: list[int] = rows.tolist()
        return Verdicts(
            self.keep[rows],
            [self.reason[row] for row in chosen],
            [self.evidence[row] for row in chosen],
            [self.matched_id[row] for row in chosen],
            self.score[rows],
            None if self.numbers is None else self.numbers[rows],
        )

    def drop(self, row: int, reason: str, evidence: str = "", matched_id: str = "", score: float = np.nan) -> None:
        """Drop one row."""
        self.keep[row] = False
        self.reason[row], self.evidence[row], self.matched_id[row], self.score[row] = (
            reason,
            evidence,
            matched_id,
            score,
        )


class Filter(Protocol):
    """One step of a chain."""

    name: str
    """Name in reports; unique in a chain."""

    def judge(self, rows: pa.Table) -> Verdicts:
        """One verdict a row."""
        ...


@runtime_checkable
class Calibrating(Protocol):
    """A filter that can set its thresholds by a sample of the rows before it judges the first of them."""

    @property
    def calibrated(self) -> dict[str, Any]:
        """What was set, and by what; empty while nothing was. A `warning` in it is for the user to read."""
        ...

    @property
    def needs_sample(self) -> bool:
        """Whether it waits for a sample."""
        ...

    def calibrate(self, rows: pa.Table) -> None:
        """Set the thresholds."""
        ...


@runtime_checkable
class Reporting(Protocol):
    """A filter that has more to tell than its verdicts."""

    name: str

    def report(self, hide: Callable[[str], str] = ...) -> dict[str, Any]:
        """What it found so far; `hide` is done to every text of a row that is shown."""
        ...


@runtime_checkable
class Persisting(Protocol):
    """A filter that hands on what it has kept to later runs."""

    def forget(self, numbers: NDArray[np.int64]) -> None:
        """Do not hand on rows that it kept (by `Verdicts.numbers`): a later step or a quota has dropped them. They are
        compared with as before."""
        ...

    def save(self, folder: Path | None = None) -> None:
        """Write it, where the step names an index: to that file, or into `folder` under the step's name."""
        ...


@runtime_checkable
class Remembering(Protocol):
    """A filter that holds something of every row it has kept: what of a run's memory grows with the rows."""

    name: str

    @property
    def nbytes(self) -> int:
        """Bytes held of them now, without what is mapped from disk."""
        ...


@runtime_checkable
class Preparing(Protocol):
    """A filter that judges rows in their order, and of which a part depends on each row alone: copies of the filter in
    other processes do that part."""

    name: str

    def prepare(self, rows: pa.Table) -> pa.Array[Any]:
        """One value a row, for `judge_prepared`."""
        ...

    def judge_prepared(self, rows: pa.Table, prepared: pa.Array[Any]) -> Verdicts:
        """What `judge` would say."""
        ...


@runtime_checkable
class Meeting(Protocol):
    """A filter that compares a row with earlier ones, and can say beforehand which of them it may compare at all."""

    name: str

    def keys(self, rows: pa.Table) -> tuple[NDArray[np.int64], NDArray[np.uint64]]:
        """Keys, and the row that each belongs to; of no row before it that shares none of its keys a row is told."""
        ...


@runtime_checkable
class Sharing(Protocol):
    """A filter whose copies in other processes must take over what it was calibrated to."""

    name: str

    def settings(self) -> dict[str, Any]:
        """What a copy needs, as JSON."""
        ...

    def adopt(self, settings: dict[str, Any]) -> None:
        """Take over the settings of the filter that this one is a copy of."""
        ...


@runtime_checkable
class Bookkeeping(Protocol):
    """A filter that judges each row by itself and counts what it finds; copies of it may judge, one keeps the books."""

    name: str

    def take_books(self) -> dict[str, Any]:
        """What `judge` has entered since this was last asked for, as JSON; it is no longer counted here."""
        ...

    def add_books(self, books: dict[str, Any]) -> None:
        """Count what a copy has entered; called in the order of the rows."""
        ...


@contextmanager
def naming(name: str) -> Generator[None]:
    """Errors of a step are said with its name; one that names a file is about that file."""
    try:
        yield
    except InputError as error:
        if error.path is not None:
            raise
        raise type(error)(f"{name}: {error.message}", hint=error.hint) from None


@dataclass(frozen=True, slots=True)
class Rewritten:
    """What a rewriter made of n rows."""

    verdicts: Verdicts
    columns: Mapping[str, Any]
    """Columns that changed (Arrow arrays), of their old types; the others are left out."""
    evidence: list[str]
    """The evidence that was given, rewritten."""


@runtime_checkable
class Rewriter(Protocol):
    """A filter that changes what rows say. It sees the rows that earlier steps dropped too, and the evidence against
    them: they are written, so what may not be written may not stand in them either."""

    name: str

    @property
    def counts(self) -> Counter[str]:
        """Values replaced so far, by kind."""
        ...

    def judge(self, rows: pa.Table) -> Verdicts:
        """One verdict a row, of the rows as they came."""
        ...

    def rewrite(self, rows: pa.Table, evidence: Sequence[str]) -> Rewritten:
        """The rows and `evidence` (one text a row, empty for kept ones), rewritten."""
        ...

    def hide(self, text: str) -> str:
        """A text that belongs to no row, rewritten."""
        ...
