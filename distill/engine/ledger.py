"""Who pays for an answer that several slots use.

At temperature 0 equal questions have one answer, asked for once. Every slot that uses it reports its price; the ledger
bills it to the first of them in slot order, so that the money of a run adds up and a replay bills the same rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from decimal import Decimal

from distill.dataset import Failure, Row
from distill.teachers import Answer

__all__ = ["Ledger"]


class Ledger:
    """Hears of every answer as it comes, and settles what the slots made of them, in slot order."""

    def __init__(self) -> None:
        self.reused = Decimal(0)
        """USD that other runs had paid for answers of this session."""
        self.verdicts = Decimal(0)
        """USD of answers that filters asked for: they belong to no row."""
        self._price: dict[str, Decimal] = {}
        self._billed: set[str] = set()

    def note(self, answer: Answer, *, shared: bool) -> None:
        """An answer was given to a slot. `shared`: the same question of another slot gets the same one."""
        if shared:
            if answer.key in self._price:
                return
            self._price[answer.key] = answer.cost
        if answer.reused:
            self.reused += answer.cost

    def note_verdict(self, answer: Answer) -> None:
        """An answer was given to a filter."""
        if answer.key in self._price:
            return
        self._price[answer.key] = answer.cost
        self.verdicts += answer.cost
        if answer.reused:
            self.reused += answer.cost

    def settle(self, items: Sequence[Row | Failure]) -> list[Row | Failure]:
        """What a slot made, without the price of answers that an earlier slot has paid."""
        if not self._price:
            return list(items)
        mine = {key for item in items for key in item.keys if key in self._price}
        settled = list(items)
        for key in mine & self._billed:
            left = self._price[key]
            for position, item in enumerate(settled):
                if key in item.keys and left:
                    taken = min(left, item.cost)
                    settled[position] = replace(item, cost=item.cost - taken)
                    left -= taken
        self._billed |= mine
        return settled
