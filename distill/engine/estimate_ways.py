"""Other ways to the answers of an estimate's pilot: in batches, online, by another teacher of the recipe."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from distill.gateway import Tariff, tariff_for, usd
from distill.gateway.batch.batching import discounted
from distill.recipe import Recipe, TeacherConfig
from distill.teachers import Usage

__all__ = ["Way", "cost_of", "tariff_in", "ways_of"]


class Way(NamedTuple):
    """One of them."""

    name: str
    recipe: Recipe
    """The recipe that would go this way; a teacher in place of another stands under the other's name."""
    tariffs: Mapping[str, Tariff | None]
    note: str
    """What to know of it."""


def tariff_in(config: TeacherConfig) -> Tariff | None:
    """What the teacher's answers cost in its mode."""
    tariff = tariff_for(config)
    return tariff if config.mode == "online" else discounted(tariff, config.batch.discount)


def cost_of(tariff: Tariff | None, usage: Usage) -> float:
    """USD of an answer; nothing where no price is known."""
    return 0.0 if tariff is None else float(usd(tariff.cost(usage)))


def ways_of(recipe: Recipe, teachers: Sequence[str]) -> list[Way]:
    """All that the recipe leaves open; none where a price is not known."""
    here = {name: recipe.teachers[name] for name in teachers}
    if any(tariff_in(config) is None for config in here.values()):
        return []
    ways: list[Way] = []
    can = [name for name in teachers if here[name].provider in ("openai", "anthropic")]
    if any(here[name].mode == "online" for name in can):
        note = "the provider takes up to 24 hours for each step of a slot and each round"
        ways.append(_way("mode: batch", recipe, here | {name: _in(here[name], mode="batch") for name in can}, note))
    if any(here[name].mode != "online" for name in can):
        note = "answers within seconds, at the full price"
        ways.append(_way("mode: online", recipe, here | {name: _in(here[name], mode="online") for name in can}, note))
    for name in teachers:
        for other, config in recipe.teachers.items():
            if other != name and config.model != here[name].model and tariff_in(config) is not None:
                note = "tokens, speed and yield are the pilot's, price and limits its own"
                ways.append(_way(f"{other} in place of {name}", recipe, here | {name: config}, note))
    return ways


def _in(config: TeacherConfig, **changed: Any) -> TeacherConfig:
    return config.model_copy(update=changed)


def _way(name: str, recipe: Recipe, teachers: Mapping[str, TeacherConfig], note: str) -> Way:
    other = recipe.model_copy(update={"teachers": {**recipe.teachers, **teachers}})
    return Way(name, other, {each: tariff_in(config) for each, config in teachers.items()}, note)
