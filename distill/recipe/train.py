"""`train:` how the student is trained. The files in `train/` hold the same keys without `model`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from distill.recipe.base import Section

__all__ = ["LoraConfig", "TrainConfig"]


class LoraConfig(Section):
    """The adapter."""

    r: int = Field(default=16, ge=1)
    """Rank."""
    alpha: int = Field(default=32, ge=1)
    """Scale: the update is multiplied by alpha / r (with `rslora`: by alpha / sqrt(r))."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    """Dropout on the adapter's input."""
    target: Literal["all-linear", "attention"] = "all-linear"
    """Layers that get an adapter."""
    rslora: bool = False
    """Rank-stabilised scale, for high ranks."""
    dora: bool = False
    """Learn the weights' magnitude apart from their direction; slower."""


class TrainConfig(Section):
    """Supervised fine-tuning of the student."""

    model: str
    """The student: a name of the catalogue, or a folder in transformers format."""
    adapter: Literal["lora", "qlora", "full"] = "lora"
    """`qlora` keeps the base in 4-bit NF4; `full` trains every weight."""
    lora: LoraConfig = LoraConfig()
    """Adapter settings."""
    epochs: float = Field(default=3.0, gt=0)
    """Passes over the training split."""
    max_steps: int | None = Field(default=None, ge=1)
    """Stop after so many updates."""
    learning_rate: float = Field(default=2e-4, gt=0)
    """Peak rate."""
    schedule: Literal["linear", "cosine", "constant"] = "cosine"
    """How the rate falls after warm-up."""
    warmup: float = Field(default=0.05, ge=0, lt=1)
    """Share of steps over which the rate rises."""
    batch_size: int = Field(default=8, ge=1)
    """Rows per update, over accumulation."""
    micro_batch_size: int | None = Field(default=None, ge=1)
    """Rows per forward pass; left out: `batch_size`. Divides `batch_size`, so that the update stays the same."""
    weight_decay: float = Field(default=0.0, ge=0)
    """Decoupled weight decay."""
    max_grad_norm: float = Field(default=1.0, gt=0)
    """Gradients are scaled down to this norm."""
    max_length: int = Field(default=1024, ge=16)
    """Tokens of a row; longer rows are counted and dropped, never cut."""
    dtype: Literal["auto", "bfloat16", "float32"] = "auto"
    """`auto`: bfloat16 where the hardware is fast at it."""
    gradient_checkpointing: bool = False
    """Trade time for memory."""
    seed: int | None = None
    """Left out: the recipe's."""

    @model_validator(mode="after")
    def _divides(self) -> TrainConfig:
        if self.micro_batch_size is not None and self.batch_size % self.micro_batch_size:
            raise ValueError(
                f"micro_batch_size: {self.micro_batch_size} does not divide batch_size {self.batch_size}; "
                "the rows per update would change"
            )
        return self
