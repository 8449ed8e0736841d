"""What steps cost, so that cheap ones come first.

A step judges only what the steps before it kept: the order decides what a chain costs, and, where two steps would drop
the same row, which of them is named. The figures are CPU microseconds a row as they were measured on rows of a system
turn, a question and an answer of 97 words together (GSM8K); they are ranks, not promises.
"""

from __future__ import annotations

from collections.abc import Sequence

from distill.recipe import FilterStep, PiiStep

__all__ = ["COST", "cost_notes"]

COST: dict[str, int] = {
    "score": 2,
    "regex": 4,
    "agreement": 6,
    "truncation": 6,
    "length": 9,
    "tags": 12,
    "script": 20,
    "minhash": 20,
    "refusal": 20,
    "exact": 35,
    "leakage": 40,
    "repetition": 45,
    "schema": 50,
    "copies": 70,
    "pii": 70,
    "custom": 100,
    "decontaminate": 100,
    "code": 130,
    "language": 200,
    "semantic": 8500,
    "diversity": 8500,
}
"""By kind."""

_MUCH = 5  # times: less depends on the rows


def cost_notes(steps: Sequence[FilterStep]) -> list[str]:
    """One note for every step that comes after a much dearer one."""
    notes: list[str] = []
    for place, step in enumerate(steps):
        before = max(steps[:place], key=_cost, default=None)
        if _masks(step):
            continue  # it drops nothing: what comes after it has as much to do
        if before is not None and _cost(before) >= _MUCH * _cost(step) and not _last(before):
            notes.append(
                f"{_name(before)} (about {_cost(before)} µs a row) stands before {_name(step)} ({_cost(step)}): "
                "the chain is cheaper the other way round"
            )
    return notes


def _cost(step: FilterStep) -> int:
    return COST.get(step.kind, 100)


def _last(step: FilterStep) -> bool:
    """Masking belongs where the user puts it: what comes after it sees placeholders."""
    return step.kind == "pii"


def _masks(step: FilterStep) -> bool:
    return isinstance(step, PiiStep) and step.action == "mask"


def _name(step: FilterStep) -> str:
    return step.name or step.kind
