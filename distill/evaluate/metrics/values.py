"""Right or wrong: `json_valid`, `exact_match`, `accuracy`."""

from __future__ import annotations

import difflib
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

from distill.errors import InputError
from distill.evaluate.holdout import Item
from distill.evaluate.metrics.base import Counted, Floats, Metric, parsed, shares, with_answers
from distill.io import canonical, loads

__all__ = ["Accuracy", "ExactMatch", "JsonValid", "check_field", "label"]


@dataclass(frozen=True)
class _RightOrWrong(Metric):
    """The share of right items; text around JSON makes it wrong."""

    def count(self, items: Sequence[Item], predictions: Sequence[str]) -> Counted:
        right = [float(self._is_right(item, text)) for item, text in zip(items, predictions, strict=True)]
        return shares(right, self._weight(items))

    @abstractmethod
    def _is_right(self, item: Item, prediction: str) -> bool: ...

    def _weight(self, items: Sequence[Item]) -> Floats | None:
        return with_answers(items)


@dataclass(frozen=True)
class JsonValid(_RightOrWrong):
    """Strict JSON, and what a schema asks for."""

    schema: Any = None

    def _is_right(self, item: Item, prediction: str) -> bool:
        try:
            value = loads(prediction.strip())
        except ValueError:
            return False
        return self.schema is None or bool(self.schema.is_valid(value))

    def _weight(self, items: Sequence[Item]) -> Floats | None:
        return None  # the form is asked of every answer

    def definition(self) -> str:
        extra = " and satisfy the schema" if self.schema is not None else ""
        return f"share of predictions that are strict JSON{extra}"


@dataclass(frozen=True)
class ExactMatch(_RightOrWrong):
    """Equal as JSON values where the answer is a JSON object or list, else as text without surrounding space."""

    as_text: bool = False

    def _is_right(self, item: Item, prediction: str) -> bool:
        if not self.as_text:
            wanted = parsed(item.answer)
            if isinstance(wanted, (dict, list)):
                found = parsed(prediction)
                return isinstance(found, (dict, list)) and canonical(found) == canonical(wanted)
        return prediction.strip() == item.answer.strip()

    def definition(self) -> str:
        if self.as_text:
            return "share equal to the answer as text"
        return "share equal to the answer: as JSON values where it is an object or list, else as text"


@dataclass(frozen=True)
class Accuracy(_RightOrWrong):
    """One field, or the whole text, equals the answer's."""

    field: str | None = None

    def check(self, items: Sequence[Item]) -> None:
        check_field(self, items, self.field)

    def count(self, items: Sequence[Item], predictions: Sequence[str]) -> Counted:
        self.check(items)
        return super().count(items, predictions)

    def _is_right(self, item: Item, prediction: str) -> bool:
        found = label(prediction, self.field)
        return found is not None and found == label(item.answer, self.field)

    def definition(self) -> str:
        return f"share whose {f'field {self.field!r}' if self.field else 'whole text'} equals the answer's"


def check_field(metric: Metric, items: Sequence[Item], field: str | None) -> None:
    """Look for an answer without the field that a metric reads.

    Raises:
        InputError: there is one; names it, and the field that may have been meant.
    """
    for item in items:
        if item.has_answer and label(item.answer, field) is None:
            value = parsed(item.answer)
            names = list(cast("dict[str, Any]", value)) if isinstance(value, dict) else []
            close = difflib.get_close_matches(field or "", names, n=1, cutoff=0.5)
            has = f"it has: {', '.join(names)}" if names else f"it is no JSON object: {item.answer[:60]!r}"
            raise InputError(
                f"item {item.id}: the answer has no field {field!r}",
                field=f"metric {metric.name}",
                hint=f"did you mean {close[0]}?" if close else has,
            )


def label(text: str, field: str | None) -> str | None:
    """The class that `text` names; None when it cannot be read."""
    if field is None:
        return text.strip()
    value = parsed(text)
    if not isinstance(value, dict) or field not in value:
        return None
    found = cast("Any", value[field])
    return found if isinstance(found, str) else canonical(found).decode()
