"""What a row is made of and what that cost: the stored answers it used, and its exact share of their price.

One answer may serve several rows (a call that writes eight questions, a judge's verdict). Its price is divided
so that the shares add up to the price to the last digit; what does not divide falls to the first row.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from decimal import ROUND_DOWN, Decimal

from distill.teachers import Answer

__all__ = ["Bill"]

_GRAIN = Decimal("1e-12")  # USD; a millionth of a token's price


@dataclass(frozen=True, slots=True)
class Bill:
    """Keys of the answers used, USD, and tokens."""

    keys: tuple[str, ...] = ()
    cost: Decimal = Decimal(0)
    input: int = 0
    output: int = 0

    @classmethod
    def of(cls, answers: Iterable[Answer]) -> Bill:
        """The bill for whole answers, in the order of the asking."""
        answers = tuple(answers)
        if len(answers) == 1:
            answer = answers[0]
            return cls((answer.key,), answer.cost, answer.usage.input, answer.usage.output)
        return cls(
            tuple(dict.fromkeys(answer.key for answer in answers)),
            sum((answer.cost for answer in answers), Decimal(0)),
            sum(answer.usage.input for answer in answers),
            sum(answer.usage.output for answer in answers),
        )

    def __add__(self, other: Bill) -> Bill:
        return Bill(
            tuple(dict.fromkeys((*self.keys, *other.keys))),
            self.cost + other.cost,
            self.input + other.input,
            self.output + other.output,
        )

    def split(self, among: int) -> list[Bill]:
        """`among` shares whose sums are this bill exactly. Every share names all keys."""
        if among == 1:
            return [self]
        cost = (self.cost / among).quantize(_GRAIN, ROUND_DOWN)
        tokens_in, tokens_out = self.input // among, self.output // among
        rest = among - 1
        first = Bill(self.keys, self.cost - cost * rest, self.input - tokens_in * rest, self.output - tokens_out * rest)
        return [first, *[Bill(self.keys, cost, tokens_in, tokens_out)] * rest]
