"""A slot: one place in the plan, with everything a prompt may want to know about it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

__all__ = ["Seed", "Slot", "Topic"]


@dataclass(frozen=True, slots=True)
class Seed:
    """An example text a person wrote. `data` holds the other fields of its line (a known answer, for instance)."""

    id: str
    text: str
    leaf: tuple[str, ...] | None = None
    data: Mapping[str, Any] = field(default_factory=dict[str, Any], hash=False)


@dataclass(frozen=True, slots=True)
class Topic:
    """A leaf of the taxonomy. `labels` are inherited down the tree."""

    path: tuple[str, ...]
    description: str = ""
    labels: Mapping[str, str] = field(default_factory=dict[str, str], hash=False)

    @property
    def name(self) -> str:
        return self.path[-1]


@dataclass(frozen=True, slots=True)
class Slot:
    """One place in the plan. Pure function of (recipe, seed, index): equal on every machine, at every run."""

    id: str
    """`<recipe>-<index>`: unique in a run, sortable, readable."""
    index: int
    topic: Topic
    dims: Mapping[str, str] = field(default_factory=dict[str, str], hash=False)
    """Chosen value of every cross dimension."""
    describe: Mapping[str, str] = field(default_factory=dict[str, str], hash=False)
    """Description of the chosen value, by dimension; empty text where there is none."""
    seeds: tuple[Seed, ...] = ()
    kind: Literal["standard", "adversarial"] = "standard"
    twist: str | None = None
    """Name of the adversarial kind."""
    twist_description: str = ""
    other: Topic | None = None
    """Second topic, for adversarial kinds that mix two."""
    labels: Mapping[str, str] = field(default_factory=dict[str, str], hash=False)
    """What is known about the row by construction: the topic's labels under the adversarial kind's own."""

    @property
    def leaf(self) -> tuple[str, ...]:
        return self.topic.path
