"""How a taxonomy file is laid out: the YAML a user writes, before it is compiled.

Every long form has a short one: a dimension may be a bare list of values, a seed a bare text, and a topic that
says nothing may be empty.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

from pydantic import ConfigDict, Discriminator, Field, Tag

from distill.recipe.base import Section

__all__ = ["AdversarialSpec", "KindSpec", "SeedSpec", "TaxonomyFile", "TopicSpec", "ValueSpec"]

Weight = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class SeedSpec(Section):
    """An example text; further keys (a known answer, for instance) are kept beside it."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, Any] = Field(init=False)  # pyright: ignore[reportIncompatibleVariableOverride]

    text: str = Field(min_length=1)
    """The example."""


def _seed_form(value: Any) -> str:
    return "text" if isinstance(value, str) else "mapping"


Seeds = tuple[
    Annotated[
        Annotated[Annotated[str, Field(min_length=1)], Tag("text")] | Annotated[SeedSpec, Tag("mapping")],
        Discriminator(_seed_form),
    ],
    ...,
]


class ValueSpec(Section):
    """One value of a dimension."""

    weight: Weight = 1
    """How often it comes, relative to the other values."""
    description: str = ""
    """What it means, for prompts (`describe.DIMENSION`)."""
    only: tuple[str, ...] = ()
    """Branches and leaves (`payments/transfer_missing`) under which alone it may come. Left out: everywhere."""


def _dimension_form(value: Any) -> str:
    return "table" if isinstance(value, dict) else "list"


Dimension = Annotated[
    Annotated[Annotated[tuple[str, ...], Field(min_length=1)], Tag("list")]
    | Annotated[Annotated[dict[str, ValueSpec | None], Field(min_length=1)], Tag("table")],
    Discriminator(_dimension_form),
]


class TopicSpec(Section):
    """A branch of the tree, or, without `topics`, a leaf."""

    weight: Weight = 1
    """How much of its branch it gets, relative to its siblings."""
    description: str = ""
    """What it is about, for prompts (`topic.description`)."""
    labels: dict[str, str] = Field(default_factory=dict[str, str])
    """What is known about its rows by construction. Inherited by what is below; the nearest wins."""
    seeds: Seeds = ()
    """Example texts. Those of a branch serve its leaves that have none of their own."""
    topics: dict[str, TopicSpec | None] = Field(default_factory=dict[str, "TopicSpec | None"])
    """What is below it."""


class KindSpec(Section):
    """An adversarial kind: rows that are made difficult on purpose."""

    weight: Weight = 1
    """How much of the adversarial share it gets, relative to the other kinds."""
    description: str = ""
    """What makes it difficult, for prompts (`twist`)."""
    labels: dict[str, str] = Field(default_factory=dict[str, str])
    """Labels that are set over those of the topic."""
    seeds: Seeds = ()
    """Example texts, instead of the topic's."""
    pair: bool = False
    """The slot gets a second, different leaf (`other` in prompts)."""
    standalone: bool = False
    """It belongs to no topic: it is a leaf of its own, with the kind's name as its path."""


class AdversarialSpec(Section):
    """Kinds of difficult rows, by name, and the share of all slots they get together."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, KindSpec | None] = Field(init=False)  # pyright: ignore[reportIncompatibleVariableOverride]
    FURTHER: ClassVar[Any] = KindSpec

    share: float | None = Field(default=None, ge=0, le=1)
    """Share of all slots; `plan.adversarial_share` of a recipe goes before it. Left out: 0.1."""

    def kinds(self) -> dict[str, KindSpec]:
        """Name -> kind, in the order of the file."""
        return {name: kind or KindSpec() for name, kind in self.__pydantic_extra__.items()}


class TaxonomyFile(Section):
    """A tree of topics, the dimensions that cut across it, and adversarial kinds."""

    name: str = Field(min_length=1)
    """Its name in reports."""
    description: str = ""
    """One line for people."""
    dimensions: dict[str, Dimension] = Field(default_factory=dict[str, Dimension])
    """Name -> values: a list, or a mapping with weights, descriptions and constraints."""
    seeds: Seeds = ()
    """Example texts for leaves that have none and whose branches have none."""
    topics: dict[str, TopicSpec | None] = Field(min_length=1)
    """The tree. What has no `topics` of its own is a leaf."""
    adversarial: AdversarialSpec = AdversarialSpec()
    """Difficult rows."""
