"""Wrong answers side by side: what every system said to the same question, a few for each class of failure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from distill.evaluate.failures import CLASSES, Failure
from distill.evaluate.holdout import Item
from distill.evaluate.metrics import Metric

__all__ = ["Example", "Said", "count_classes", "deciding_metric", "side_by_side"]

_A_CLASS = 3
_LONGEST = 1500


@dataclass(frozen=True, slots=True)
class Said:
    """One system's answer. `failure` is its class, None where it is right."""

    text: str
    failure: str | None = None
    why: str = ""


@dataclass(frozen=True, slots=True)
class Example:
    """One item and what the systems said to it."""

    id: str
    leaf: str
    question: str
    answer: str
    systems: dict[str, Said]


def deciding_metric(metrics: Sequence[Metric]) -> Metric | None:
    """The metric that says whether an item is right: exact match where it is counted, else the first that looks at
    more than the form."""

    def rank(metric: Metric) -> int:
        if metric.kind == "exact_match":
            return 0
        if metric.RANGE != (0.0, 1.0):
            return 3  # a judge's score is no share of rightness
        return 2 if metric.kind == "json_valid" else 1

    return min(metrics, key=rank, default=None)


def count_classes(failures: Sequence[Failure | None]) -> dict[str, int]:
    """How many wrong items of each class there are."""
    counts = Counter(failure.kind for failure in failures if failure is not None)
    return {name: counts[name] for name in CLASSES if counts[name]}


def side_by_side(
    items: Sequence[Item],
    texts: Mapping[str, Sequence[str]],
    failures: Mapping[str, Sequence[Failure | None]],
    subject: str,
) -> tuple[Example, ...]:
    """Items that `subject` answers wrongly, at most three of a class and spread over the holdout; those that another
    system answers rightly come first."""
    chosen: list[Example] = []
    others = [name for name in texts if name != subject]
    for kind in CLASSES:
        wrong = [n for n, failure in enumerate(failures[subject]) if failure is not None and failure.kind == kind]
        solved = [n for n in wrong if any(failures[name][n] is None for name in others)]
        rest = [n for n in wrong if n not in set(solved)]
        picked = _spread(solved, _A_CLASS)
        for n in sorted([*picked, *_spread(rest, _A_CLASS - len(picked))]):
            said = {name: _said(texts[name][n], failures[name][n]) for name in texts}
            item = items[n]
            chosen.append(Example(item.id, item.leaf, item.question[-_LONGEST:], item.answer[:_LONGEST], said))
    return tuple(chosen)


def _spread(rows: Sequence[int], count: int) -> list[int]:
    """At most `count` of `rows`, from all over them."""
    count = min(count, len(rows))
    return [rows[k * len(rows) // count] for k in range(count)]


def _said(text: str, failure: Failure | None) -> Said:
    shown = text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"
    return Said(shown) if failure is None else Said(shown, failure.kind, failure.why)
