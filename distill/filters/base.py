"""The filter contract: a table in, one verdict a row out, same length and order.

A filter may hold state (an index of what it has kept): `judge` is called once a batch, in order, and a row is
compared with the rows before it, in this batch and in earlier ones. Results never depend on where batches end.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

__all__ = ["Filter", "Verdicts"]


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

    @classmethod
    def kept(cls, n: int) -> Verdicts:
        """Everything kept."""
        return cls(np.ones(n, bool), [""] * n, [""] * n, [""] * n, np.full(n, np.nan))

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
