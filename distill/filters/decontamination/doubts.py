"""Rows whose scores are near a threshold: which are asked about, how many at most, and what was said."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from distill.recipe import VerdictConfig

__all__ = ["Doubts", "Opinion", "Pair"]

Pair = tuple[str, str]
"""A row's text and the eval item's."""

Opinion = Callable[[Sequence[Pair]], Sequence[bool | None]]
"""Whether the texts of each pair are the same problem; None where nobody says. Called from a thread without a loop."""


@dataclass(slots=True)
class Doubts:
    """Asks about doubtful pairs, as many as may be asked, and keeps count."""

    config: VerdictConfig
    opinion: Opinion
    same: int = 0
    different: int = 0
    unanswered: int = 0
    unasked: int = 0
    """Doubtful pairs beyond `max_asks`."""

    def zone(self, threshold: float) -> tuple[float, float]:
        """Scores from the first up to below the second are doubted."""
        low, high = self.config.zone
        return low * threshold, high * threshold

    def settle(self, pairs: Sequence[Pair]) -> Sequence[bool | None]:
        """A verdict for each pair, None where the threshold decides."""
        left = max(0, self.config.max_asks - self.same - self.different - self.unanswered)
        said = [*self.opinion(pairs[:left])] if pairs[:left] else []
        self.same += said.count(True)
        self.different += said.count(False)
        self.unanswered += said.count(None)
        self.unasked += len(pairs) - len(said)
        return [*said, *[None] * (len(pairs) - len(said))]

    def as_json(self) -> dict[str, int]:
        return {
            "same": self.same,
            "different": self.different,
            "unanswered": self.unanswered,
            "unasked": self.unasked,
        }
