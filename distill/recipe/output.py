"""`budget:` and `dataset:` what may be spent, and what is written."""

from __future__ import annotations

from decimal import Decimal
from typing import Literal

from pydantic import Field

from distill.recipe.base import Section

__all__ = ["Budget", "DatasetConfig", "MixConfig"]


class Budget(Section):
    """Caps that are never passed: the run stops before, and the same command with a higher cap goes on."""

    usd: Decimal | None = Field(default=None, ge=0)
    """US dollars for this run, over all its sessions."""
    tokens: int | None = Field(default=None, ge=1)
    """Input and output tokens for this run, over all its sessions."""
    hours: float | None = Field(default=None, gt=0)
    """Hours of one session."""
    unknown_price: Literal["refuse", "tokens_only"] = "refuse"
    """What to do when a teacher's price is not known: refuse to start, or run and count tokens only."""


class MixConfig(Section):
    """A general-purpose set that is mixed into the training split, against forgetting."""

    path: str
    """JSONL, Parquet or CSV file with conversations, or with a prompt and a response."""
    share: float = Field(gt=0, le=0.9)
    """Share of the training split that its rows make up. Those that repeat an eval set or the holdout are left out."""


class DatasetConfig(Section):
    """The training files."""

    format: Literal["auto", "messages", "prompt_completion", "alpaca", "sharegpt", "preference", "reasoning"] = "auto"
    """Layout of a training row. `auto`: what the method makes (messages, reasoning or preference)."""
    validation: float = Field(default=0.1, ge=0, lt=1)
    """Share of rows for the validation split; rows of one slot or one seed group stay together."""
    reasoning_template: str = "<think>\n{reasoning}\n</think>\n\n{answer}"
    """For `reasoning`: how the chain and the answer become the assistant turn."""
    mix: MixConfig | None = None
    """General-purpose rows to add to the training split."""
    license: str = "other"
    """Licence named in the dataset card."""
