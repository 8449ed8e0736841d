"""What a metric is, and what it makes of the predictions of one system."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from distill.errors import InputError
from distill.evaluate.holdout import Item
from distill.io import loads

__all__ = [
    "AskedMetric",
    "Counted",
    "DrawnMetric",
    "Floats",
    "JudgeDesk",
    "Metric",
    "parsed",
    "ratio",
    "shares",
    "with_answers",
]

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Counted:
    """Predictions of one system, counted by one metric."""

    right: Floats
    """Per item: how right it is, 0 to 1 for all metrics but a judge's."""
    sums: Floats
    """Per item (rows): the figures that are summed over items."""
    reduce: Callable[[Floats], Floats]
    """Values of many sums: [many, figures] -> [many]."""
    plain: bool = False
    """The value is the mean of `right` over the items that count."""
    weight: Floats | None = None
    """Per item: 1 where it counts, else 0. None: all count."""
    details: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """What the value is made of, as JSON values: figures per class, field or term."""
    notes: tuple[str, ...] = ()
    """Per item, where there is something to say of it: why a program failed, what a judge said."""

    @property
    def value(self) -> float:
        return float(self.reduce(self.sums.sum(0, keepdims=True))[0])

    @property
    def counts(self) -> NDArray[np.bool_]:
        """Per item: whether it counts."""
        return np.ones(len(self.right), np.bool_) if self.weight is None else self.weight > 0

    @property
    def right_or_wrong(self) -> bool:
        """Whether every item is either right or wrong, and the value the share of the right ones."""
        return self.plain and bool(np.isin(self.right[self.counts], (0.0, 1.0)).all())

    def only(self, rows: NDArray[np.intp]) -> Counted:
        """The same for some of the items."""
        weight = None if self.weight is None else self.weight[rows]
        return Counted(self.right[rows], self.sums[rows], self.reduce, self.plain, weight)


@dataclass(frozen=True)
class Metric(ABC):
    """A metric with its options. `name` is how the user wrote it."""

    name: str

    RANGE: ClassVar[tuple[float, float]] = (0.0, 1.0)
    """Least and largest value there can be."""

    @property
    def kind(self) -> str:
        """The name without options."""
        return self.name.partition(":")[0]

    def check(self, items: Sequence[Item]) -> None:  # noqa: B027 - most metrics take any item
        """Look for items that cannot be counted, before anything is generated.

        Raises:
            InputError: there is one; names it.
        """

    @abstractmethod
    def count(self, items: Sequence[Item], predictions: Sequence[str]) -> Counted:
        """Count `predictions`, one an item and in the same order."""

    @abstractmethod
    def definition(self) -> str:
        """One line for people: what exactly the value is."""


@dataclass(frozen=True)
class DrawnMetric(Metric):
    """A metric over several answers to each item, drawn at a temperature."""

    samples: int = 1
    """Answers it needs of each item. One: the greedy answer."""

    @abstractmethod
    def count_draws(self, items: Sequence[Item], draws: Sequence[Sequence[str]]) -> Counted:
        """Count several answers an item."""

    def count(self, items: Sequence[Item], predictions: Sequence[str]) -> Counted:
        if self.samples > 1:
            raise InputError(f"metric {self.name}: needs {self.samples} answers an item, and one is given")
        return self.count_draws(items, [[prediction] for prediction in predictions])


@dataclass(frozen=True)
class AskedMetric(Metric):
    """A metric that asks a teacher what it thinks of an answer."""

    teacher: str | None = None
    """Who is asked; None: whom the evaluation names."""

    @abstractmethod
    def check_desk(self, desk: JudgeDesk) -> None:
        """Make sure that there is somebody to ask, and what to ask by.

        Raises:
            InputError: there is not.
        """

    @abstractmethod
    async def count_asking(
        self, items: Sequence[Item], predictions: Sequence[str], reference: Reference, desk: JudgeDesk
    ) -> Counted:
        """Count with the help of `desk`. `reference` is what the predictions may be compared with."""

    def count(self, items: Sequence[Item], predictions: Sequence[str]) -> Counted:
        raise InputError(
            f"metric {self.name}: asks a teacher", hint="count it in an evaluation of a recipe that has one"
        )


@dataclass(frozen=True, slots=True)
class Reference:
    """Predictions of the systems that were scored before this one."""

    system: str
    """The system whose turn it is."""
    others: Mapping[str, Sequence[str]]


class JudgeDesk(Protocol):
    """Where an `AskedMetric` asks."""

    @property
    def cost(self) -> Mapping[str, float]: ...

    def check(self, rubric: str | None, name: str, *, pairwise: bool) -> None: ...

    async def score(self, rubric: str | None, question: str, answer: str, known: str, name: str) -> float | None: ...

    async def winner(self, rubric: str | None, question: str, a: str, b: str, known: str, name: str) -> str | None: ...


def shares(
    right: Sequence[float] | Floats,
    weight: Floats | None = None,
    *,
    details: Mapping[str, Any] | None = None,
    notes: Sequence[str] = (),
) -> Counted:
    """The mean of `right`, over the items that count."""
    values = np.asarray(right, np.float64)
    counts = np.ones_like(values) if weight is None else weight
    return Counted(
        values, np.stack([values * counts, counts], 1), ratio, True, weight, dict(details or {}), tuple(notes)
    )


def ratio(sums: Floats) -> Floats:
    """First column over second; not a number where a resample holds no item that counts."""
    return np.divide(sums[:, 0], sums[:, 1], out=np.full(len(sums), np.nan), where=sums[:, 1] > 0)


def with_answers(items: Sequence[Item]) -> Floats | None:
    """Weights that leave out items without an answer; None where all have one."""
    if all(item.has_answer for item in items):
        return None
    return np.array([float(item.has_answer) for item in items])


def parsed(text: str) -> Any:
    """The JSON value of the whole text; None where it is not JSON."""
    try:
        return loads(text.strip())
    except ValueError:
        return None
