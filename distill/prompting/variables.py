"""The variables of every prompt, and those that methods add."""

from __future__ import annotations

from typing import Any

from distill.planning import Slot

__all__ = ["EXTRA", "STANDARD", "variables_of"]

STANDARD = (
    "leaf",  # names from the root to the leaf
    "topic",  # .name .description .path .labels
    "dims",  # every dimension's value, by name; each also stands under its own name
    "describe",  # descriptions of those values, by dimension
    "seeds",  # examples: .text .data .id
    "labels",  # what is known about the row by construction
    "kind",  # `standard`, or the name of the adversarial kind
    "twist",  # that kind's description
    "other",  # second topic, for kinds that mix two
    "slot",  # .index .id
)
"""Variables of every prompt, besides one for each dimension."""

EXTRA: dict[str, Any] = {
    "input": "(the written input)",
    "n": 1,
    "question": "(the question)",
    "a": "(the first answer)",
    "b": "(the second answer)",
    "answer": "(the answer)",
    "known": "(the known answer)",
}
"""Variables that methods add, with what `check` puts in their place."""

_latest: tuple[Slot, dict[str, Any]] | None = None


def variables_of(slot: Slot) -> dict[str, Any]:
    """The slot's variables; not to be changed. Made once for a slot whose prompts are rendered in a row."""
    global _latest
    latest = _latest
    if latest is not None and latest[0] is slot:
        return latest[1]
    topic = slot.topic
    values: dict[str, Any] = {
        **slot.dims,
        "leaf": topic.path,
        "topic": topic,
        "dims": slot.dims,
        "describe": slot.describe,
        "seeds": slot.seeds,
        "labels": slot.labels,
        "kind": slot.twist or "standard",
        "twist": slot.twist_description,
        "other": slot.other,
        "slot": slot,
    }
    _latest = (slot, values)
    return values
