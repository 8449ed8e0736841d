"""Whose turn it is: shares become a sequence that keeps to them at every prefix.

After n turns an item with share p has had more than p·n - 1 and fewer than p·n + 1 of them. Turn j of an item
may come no earlier than (j-1)/p and no later than j/p; among the turns that may come, the most urgent does.
(Earliest deadline first on these windows is optimal for one processor: Baruah, Cohen, Plaxton, Varvel,
"Proportionate progress", Algorithmica 1996.) The arithmetic is exact.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from fractions import Fraction
from math import lcm

from distill.planning.mixing import mix

__all__ = ["Interleave", "apportion"]


class Interleave:
    """An endless sequence of item numbers; O(log items) a turn.

    Args:
        shares: positive, adding up to 1.
        keys: one a item; turns that are equally urgent are ordered by them, differently every time.
    """

    def __init__(self, shares: Sequence[Fraction], keys: Sequence[int]) -> None:
        if sum(shares, Fraction(0)) != 1 or min(shares) <= 0:
            raise ValueError("shares must be positive and add up to 1")
        self._whole = lcm(*(share.denominator for share in shares))
        self._parts = [int(share * self._whole) for share in shares]
        self._keys = list(keys)
        self._turns = [0] * len(shares)
        self._waiting: list[tuple[int, int]] = []
        self._ready: list[tuple[int, int, int]] = []
        self._now = 0
        for item in range(len(shares)):
            self._enter(item)

    def next(self) -> int:
        """The item of the next turn."""
        waiting = self._waiting
        while waiting and waiting[0][0] <= self._now:
            self._make_ready(heapq.heappop(waiting)[1])
        item = heapq.heappop(self._ready)[2]
        self._now += 1
        self._turns[item] += 1
        self._enter(item)
        return item

    def _enter(self, item: int) -> None:
        release = self._turns[item] * self._whole // self._parts[item]
        if release <= self._now:
            self._make_ready(item)
        else:
            heapq.heappush(self._waiting, (release, item))

    def _make_ready(self, item: int) -> None:
        turn = self._turns[item]
        deadline = -(-(turn + 1) * self._whole // self._parts[item])
        heapq.heappush(self._ready, (deadline, mix(self._keys[item] + turn), item))


def apportion(total: int, shares: Sequence[Fraction]) -> list[int]:
    """Split `total` by shares that add up to 1, in whole numbers (largest remainder, earlier items first)."""
    counts = [int(share * total) for share in shares]
    by_remainder = sorted(range(len(shares)), key=lambda item: (counts[item] - shares[item] * total, item))
    for item in by_remainder[: total - sum(counts)]:
        counts[item] += 1
    return counts
