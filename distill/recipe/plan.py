"""`plan:` how many rows, about what."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from distill.recipe.base import Section

__all__ = ["PlanConfig"]


class PlanConfig(Section):
    """What the rows are about and how many are wanted."""

    taxonomy: str
    """A taxonomy file, or the name of one in `taxonomies/`."""
    target: int = Field(ge=1)
    """Accepted rows: the run goes on until that many are kept."""
    seeds: str | None = None
    """JSONL of example texts (`text`, optional `leaf: branch/leaf`) beside those in the taxonomy."""
    seeds_per_slot: int = Field(default=2, ge=0, le=16)
    """Examples shown to the teacher at once. No combination comes twice until all have been used."""
    adversarial_share: float | None = Field(default=None, ge=0, le=1)
    """Share of slots of the taxonomy's adversarial kinds. Left out: the taxonomy's own `share`."""
    balance: Literal["leaf", "none"] = "leaf"
    """`leaf`: every leaf fills its own share of the target. `none`: only the total counts."""
    expected_yield: float = Field(default=1.0, gt=0, le=1)
    """Share of rows that you expect the filters to keep: the first round plans for it. Less than the truth asks for
    rows that nobody needs, more takes another round, whose few questions leave a slow teacher idle."""
    max_rounds: int = Field(default=8, ge=1)
    """Rounds of planning for what is still missing before the run says which leaves stay short."""
