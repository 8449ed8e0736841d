"""What changed between two releases: data, settings, weights, scores."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, cast

from distill.release.record import Release

__all__ = ["Change", "differences"]

_SECTIONS = {
    "weights": ("kind", "weights_digest", "base", "base_digest", "four_bit", "dtype", "template", "quantisation"),
    "data": ("data",),
    "training": ("training",),
    "merge": ("merge",),
    "engine": ("proof",),
    "proof": ("unproven",),
}
_NOISE = ("train_seconds", "peak_memory_bytes", "seconds", "file")


@dataclass(frozen=True, slots=True)
class Change:
    """One figure or setting that differs. None: it is not there."""

    section: str
    key: str
    before: Any
    after: Any
    note: str = ""


def differences(before: Release, after: Release) -> list[Change]:
    """Every difference; scores are compared where both were measured on the same holdout."""
    old, new = before.model_dump(mode="json"), after.model_dump(mode="json")
    changes: list[Change] = []
    for section, fields in _SECTIONS.items():
        left = dict(_flat({field: old[field] for field in fields}))
        right = dict(_flat({field: new[field] for field in fields}))
        for key in dict.fromkeys([*left, *right]):
            if left.get(key) != right.get(key) and key.rsplit(".", 1)[-1] not in _NOISE:
                changes.append(Change(section, key, left.get(key), right.get(key)))
    return [*changes, *_scores(before, after)]


def _scores(before: Release, after: Release) -> Iterator[Change]:
    ours, theirs = after.score, before.score
    if ours is None or theirs is None:
        if (ours is None) != (theirs is None):
            yield Change("scores", "scorecard", theirs and theirs.holdout, ours and ours.holdout)
        return
    same = ours.holdout_digest == theirs.holdout_digest
    if not same:
        yield Change(
            "scores", "holdout", theirs.holdout_digest, ours.holdout_digest, "other items: scores do not compare"
        )
    for name in dict.fromkeys([*theirs.metrics, *ours.metrics]):
        left, right = theirs.metrics.get(name), ours.metrics.get(name)
        note = ""
        if same and left is not None and right is not None:
            apart = left["high"] < right["low"] or right["high"] < left["low"]
            note = "intervals lie apart" if apart else "intervals overlap"
        value = [round(figure["value"], 4) if figure is not None else None for figure in (left, right)]
        if value[0] != value[1]:
            yield Change("scores", name, value[0], value[1], note)


def _flat(value: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, item in value.items():
        name = f"{prefix}{key}"
        if isinstance(item, dict):
            yield from _flat(cast("dict[str, Any]", item), f"{name}.")
        elif item is not None:
            yield name, item
