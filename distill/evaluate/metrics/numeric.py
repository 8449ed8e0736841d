"""`numeric`: the final number of an answer, compared exactly or within a tolerance.

    rule=last                 the last number of the text (what arithmetic benchmarks do)
    rule=all                  the text states one number and no other
    rule=last_line, boxed, tag, after      where a chain of thought ends, as `method.answer` reads it

`1,000`, `$2.50`, `3/4`, `\\frac{3}{4}` and `50%` are numbers; 50% is 50 and 0.5. No number is wrong.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from distill.errors import InputError
from distill.evaluate.holdout import Item
from distill.evaluate.metrics.base import Counted, Metric, shares, with_answers
from distill.methods.answers import extractor
from distill.methods.numbers import Number, equal_numbers, last_number, number

__all__ = ["NUMERIC_RULES", "Numeric"]

NUMERIC_RULES = ("last", "all", "last_line", "boxed", "tag", "after")


@dataclass(frozen=True)
class Numeric(Metric):
    """The share whose final number is the answer's."""

    rule: str = "last"
    tolerance: float = 0.0
    """Relative to the larger of the two."""

    def check(self, items: Sequence[Item]) -> None:
        for item in items:
            if item.has_answer and _known(item) is None:
                raise InputError(f"item {item.id}: the answer holds no number", field=f"metric {self.name}")

    def count(self, items: Sequence[Item], predictions: Sequence[str]) -> Counted:
        self.check(items)
        right = [float(self._is_right(item, text)) for item, text in zip(items, predictions, strict=True)]
        return shares(right, with_answers(items))

    def definition(self) -> str:
        where = "the last number" if self.rule == "last" else f"the number found by {self.rule}"
        near = f" within {self.tolerance:g} of it" if self.tolerance else ""
        return f"share whose final number ({where}) is the answer's{near}"

    def _is_right(self, item: Item, text: str) -> bool:
        found, known = self._find(text), _known(item)
        return found is not None and known is not None and equal_numbers(found, known, self.tolerance)

    def _find(self, text: str) -> Number | None:
        if self.rule == "last":
            return last_number(text)
        found = extractor(self.rule)(text)
        return None if found is None else number(found.answer)


def _known(item: Item) -> Number | None:
    """The answer's number; of a worked answer, the last one."""
    return number(item.answer) or last_number(item.answer)
