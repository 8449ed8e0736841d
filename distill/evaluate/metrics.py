"""What is counted. A metric turns predictions into per-item figures whose sums give its value.

    json_valid[:schema=FILE]   share of predictions that are strict JSON (and satisfy the schema); text around it fails
    exact_match[:as=text]      share equal to the answer: as JSON values where the answer is a JSON object or list,
                               else as text without surrounding space; `as=text` compares text always
    accuracy[:field=NAME]      share whose field (or whole text) equals the answer's
    macro_f1[:field=NAME]      F1 of each class that the answers hold, averaged with equal weight. A prediction
                               without a readable field is a miss of its class

All of them are functions of sums over items (right, predicted and true per class). So resampled and permuted values
are one matrix product, and thousands of them take milliseconds.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from distill.errors import InputError
from distill.evaluate.holdout import Item
from distill.io import canonical, loads
from distill.methods.validation import compile_schema

__all__ = ["NAMES", "Counted", "Metric", "parse_metric"]

NAMES = ("json_valid", "exact_match", "accuracy", "macro_f1")

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Counted:
    """Predictions of one system, counted by one metric."""

    right: Floats
    """Per item: 1 where the item is right, else 0."""
    sums: Floats
    """Per item (rows): the figures that are summed over items."""
    reduce: Callable[[Floats], Floats]
    """Values of many sums: [many, figures] -> [many]."""

    @property
    def value(self) -> float:
        return float(self.reduce(self.sums.sum(0, keepdims=True))[0])


@dataclass(frozen=True)
class Metric:
    """A metric with its options. `name` is how the user wrote it."""

    name: str
    kind: str
    field: str | None = None
    schema: Any = None
    as_text: bool = False

    def count(self, items: Sequence[Item], predictions: Sequence[str]) -> Counted:
        """Count `predictions`, one an item and in the same order."""
        if self.kind == "macro_f1":
            return self._macro_f1(items, predictions)
        judge = {"json_valid": self._valid, "exact_match": self._exact, "accuracy": self._accurate}[self.kind]
        right = np.array([float(judge(i, p)) for i, p in zip(items, predictions, strict=True)])
        return Counted(right, np.stack([right, np.ones_like(right)], 1), lambda s: s[:, 0] / s[:, 1])

    def definition(self) -> str:
        """One line for people: what exactly the value is."""
        what = f"field {self.field!r}" if self.field else "whole text"
        return {
            "json_valid": "share of predictions that are strict JSON"
            + (" and satisfy the schema" if self.schema is not None else ""),
            "exact_match": "share equal to the answer as text"
            if self.as_text
            else "share equal to the answer: as JSON values where it is an object or list, else as text",
            "accuracy": f"share whose {what} equals the answer's",
            "macro_f1": f"F1 of the {what}, mean over the classes of the answers; an unreadable prediction is a miss",
        }[self.kind]

    def _valid(self, item: Item, prediction: str) -> bool:
        try:
            value = loads(prediction.strip())
        except ValueError:
            return False
        return self.schema is None or bool(self.schema.is_valid(value))

    def _exact(self, item: Item, prediction: str) -> bool:
        if not self.as_text:
            wanted = _parsed(item.answer)
            if isinstance(wanted, (dict, list)):
                found = _parsed(prediction)
                return isinstance(found, (dict, list)) and canonical(found) == canonical(wanted)
        return prediction.strip() == item.answer.strip()

    def _accurate(self, item: Item, prediction: str) -> bool:
        return self._label(prediction) == self._label(item.answer)

    def _macro_f1(self, items: Sequence[Item], predictions: Sequence[str]) -> Counted:
        true = [self._label(item.answer) for item in items]
        for item, label in zip(items, true, strict=True):
            if label is None:
                raise InputError(f"item {item.id}: the answer has no field {self.field!r}", field=f"metric {self.name}")
        found = [self._label(prediction) for prediction in predictions]
        classes = sorted({cast("str", label) for label in true})
        index = {label: position for position, label in enumerate(classes)}
        hit, said, is_ = (np.zeros((len(items), len(classes))) for _ in range(3))
        for row, (wanted, label) in enumerate(zip(true, found, strict=True)):
            is_[row, index[cast("str", wanted)]] = 1
            if label in index:
                said[row, index[label]] = 1
                hit[row, index[label]] = float(label == wanted)
        return Counted(hit.sum(1), np.concatenate([hit, said, is_], 1), _mean_f1)

    def _label(self, text: str) -> str | None:
        """The class that `text` names; None when it cannot be read."""
        if self.field is None:
            return text.strip()
        value = _parsed(text)
        if not isinstance(value, dict) or self.field not in value:
            return None
        label = cast("Any", value[self.field])
        return label if isinstance(label, str) else canonical(label).decode()


def parse_metric(text: str, *, schema: Path | None = None, folder: Path | None = None) -> Metric:
    """The metric that `text` names, such as `macro_f1:field=intent`.

    Args:
        schema: JSON Schema for `json_valid` where the text names none.
        folder: where a relative schema path starts from.

    Raises:
        InputError: no such metric or option; names the nearest.
    """
    kind, _, rest = text.partition(":")
    if kind not in NAMES:
        close = difflib.get_close_matches(kind, NAMES, n=1, cutoff=0.4)
        hint = f"did you mean {close[0]}? " if close else ""
        raise InputError(f"no such metric: {kind}", hint=f"{hint}there are: {', '.join(NAMES)}")
    options: dict[str, str] = {}
    for part in filter(None, rest.split(",")):
        key, equals, value = part.partition("=")
        if not equals or not value:
            raise InputError(f"metric {text}: {part!r} should read NAME=VALUE")
        options[key] = value
    known = {"json_valid": {"schema"}, "exact_match": {"as"}, "accuracy": {"field"}, "macro_f1": {"field"}}[kind]
    if extra := options.keys() - known:
        raise InputError(f"metric {text}: no option {sorted(extra)[0]!r}", hint=f"there is: {', '.join(known)}")
    if options.get("as", "text") != "text":
        raise InputError(f"metric {text}: `as` can only be text")
    file = (folder or Path()) / options["schema"] if "schema" in options else schema
    compiled = _compiled(file) if kind == "json_valid" and file is not None else None
    return Metric(text, kind, options.get("field"), compiled, "as" in options)


def _mean_f1(sums: Floats) -> Floats:
    hit, said, is_ = np.split(sums, 3, axis=1)
    total = said + is_
    f1 = np.divide(2 * hit, total, out=np.zeros_like(total), where=total > 0)
    present = is_ > 0  # a resample may hold none of a class
    return (f1 * present).sum(1) / np.maximum(present.sum(1), 1)


def _compiled(file: Path) -> Any:
    try:
        return compile_schema(loads(file.read_bytes()), str(file))
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror}", path=file) from None
    except ValueError as error:
        raise InputError(f"not valid JSON: {error}", path=file) from None


def _parsed(text: str) -> Any:
    try:
        return loads(text.strip())
    except ValueError:
        return None
