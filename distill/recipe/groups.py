"""`teacher_groups:` several teachers under one name: by shares, and one for another that is down."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator, Field, WithJsonSchema, model_validator

from distill.recipe.base import Section

__all__ = ["TeacherGroup"]


def _share(value: Any) -> Any:
    """`70 %` is 0.7."""
    if isinstance(value, str) and value.rstrip().endswith("%"):
        try:
            return float(value.rstrip().removesuffix("%")) / 100
        except ValueError:
            raise ValueError(f"not a share: {value!r}; write 70 % or 0.7") from None
    return value


_SHARE_SCHEMA = {
    "anyOf": [{"type": "number", "exclusiveMinimum": 0}, {"type": "string", "pattern": r"^\d+(\.\d+)? ?%$"}]
}
Share = Annotated[float, BeforeValidator(_share), Field(gt=0), WithJsonSchema(_SHARE_SCHEMA)]


class TeacherGroup(Section):
    """Teachers that stand for each other. The group's name stands wherever a teacher's does.

    Which teacher a slot asks first is decided by the slot alone, so that it is the same on every machine and in every
    session; who answers in its place is decided by who is up, and stands in the answer store from then on.
    """

    share: dict[str, Share] = Field(min_length=1)
    """How the slots are shared out, by the names of teachers: `{a: 70 %, b: 30 %}`, or any numbers in that relation."""
    fallback: tuple[str, ...] | None = None
    """Teachers asked, in this order, where the slot's own is down, out of quota or too small for the prompt. Left out:
    the others of `share`, the largest share first. An empty list: nobody, the slot waits for its own."""

    @model_validator(mode="after")
    def _once(self) -> TeacherGroup:
        twice = {name for name in self.fallback or () if (self.fallback or ()).count(name) > 1}
        if twice:
            raise ValueError(f"fallback: {sorted(twice)[0]} stands there twice")
        return self

    @property
    def members(self) -> tuple[str, ...]:
        """Every teacher of the group, once."""
        return tuple(dict.fromkeys((*self.share, *(self.fallback or ()))))

    def order(self, first: str) -> tuple[str, ...]:
        """Who is asked where `first` is the slot's own teacher: that one, then those in its place."""
        others = self.fallback
        if others is None:
            others = tuple(sorted(self.share, key=lambda name: -self.share[name]))
        return (first, *(name for name in others if name != first))
