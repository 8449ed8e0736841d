"""`train:` how the student is trained. The files in `train/` hold the same keys without `model`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from distill.recipe.base import Section
from distill.recipe.distillation import DistillationLoss

__all__ = ["LoraConfig", "PreferenceLoss", "TrainConfig", "WatchConfig"]


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


class PreferenceLoss(Section):
    """What `method: dpo`, `kto` and `orpo` minimise on better and worse answers."""

    loss: Literal["sigmoid", "ipo"] = "sigmoid"
    """Of `dpo`. `sigmoid`: DPO (arXiv:2305.18290); `ipo`: its squared form (arXiv:2310.12036), over-fits clear pairs
    less."""
    beta: float = Field(default=0.1, gt=0)
    """How strongly the student is held to its reference; of `ipo` the regularisation tau, of `orpo`, which has no
    reference, the weight of the odds ratio beside the chosen answers' loss."""
    sft: float = Field(default=0.0, ge=0)
    """Of `dpo`: weight of the chosen answers' own loss; keeps their probability from falling along with the rejected
    ones'."""
    desirable: float | None = Field(default=None, gt=0)
    """Of `kto`: weight of good answers. Left out: the rarer kind is weighted up until both weigh the same."""
    undesirable: float | None = Field(default=None, gt=0)
    """Of `kto`: weight of bad answers."""


class WatchConfig(Section):
    """The task metric on validation rows while training: the student answers them, the best state is kept."""

    metric: str = "exact_match"
    """As in `evaluate.metrics`: `exact_match`, `macro_f1:field=intent`; higher is better."""
    every: int | None = Field(default=None, ge=1)
    """Updates between two scores; left out: an epoch."""
    items: int = Field(default=64, ge=1)
    """Validation rows that are answered, the first ones."""
    max_tokens: int = Field(default=128, ge=1)
    """Longest answer."""
    patience: int | None = Field(default=None, ge=1)
    """End the training after so many scores without a new best."""


class TrainConfig(Section):
    """Training of the student."""

    model: str
    """The student: a name of the catalogue, or a folder in transformers format."""
    method: Literal["sft", "dpo", "kto", "orpo", "distill", "on-policy"] = "sft"
    """`sft` learns answers; `dpo` and `orpo` learn from pairs which of two answers is better, `kto` from answers marked
    good or bad; `distill` learns a teacher's probabilities of the rows' answers, `on-policy` of the student's own."""
    adapter: Literal["lora", "qlora", "full"] = "lora"
    """`qlora` keeps the base in 4-bit NF4; `full` trains every weight."""
    lora: LoraConfig = LoraConfig()
    """Adapter settings."""
    preference: PreferenceLoss = PreferenceLoss()
    """For `method: dpo`, `kto` and `orpo`."""
    distillation: DistillationLoss = DistillationLoss()
    """For `method: distill` and `on-policy`."""
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
    """Rows (with `packing`: sequences) per forward pass; left out: `batch_size`. Divides `batch_size`, so that the
    update stays the same. Where memory does not suffice, fewer are taken."""
    weight_decay: float = Field(default=0.0, ge=0)
    """Decoupled weight decay."""
    max_grad_norm: float = Field(default=1.0, gt=0)
    """Gradients are scaled down to this norm."""
    max_length: int = Field(default=1024, ge=16)
    """Tokens of a row, and of a sequence that rows are packed into. Longer rows are counted, and never cut off."""
    long_rows: Literal["drop", "split"] = "drop"
    """For `method: sft`, rows over `max_length`: left out, or split between turns into several conversations, each with
    the system turn."""
    packing: Literal["none", "bfd"] = "none"
    """For `method: sft`; `bfd` puts the rows of an update into sequences of `max_length` tokens (best fit decreasing)
    in which no row sees another: no padding, the same update. Meant for GPUs."""
    dtype: Literal["auto", "bfloat16", "float32"] = "auto"
    """`auto`: bfloat16 where the hardware is fast at it."""
    gradient_checkpointing: bool = False
    """Trade time for memory."""
    seed: int | None = None
    """Left out: the recipe's."""
    neftune: float | None = Field(default=None, gt=0)
    """For `method: sft`: noise on the embeddings while training (NEFTune, arXiv:2310.05914), usually 5."""
    thinking: Literal["keep", "drop"] = "keep"
    """For `method: sft`; `drop` takes `<think>…</think>` out of the answers before training."""
    watch: WatchConfig | None = None
    """For `method: sft`: score answers while training, and keep the best state."""
    tensorboard: bool = False
    """Also write the curves as TensorBoard event files, into `tensorboard/` beside the log."""

    @property
    def rows_at_once(self) -> int:
        """Rows per forward pass."""
        return self.micro_batch_size or self.batch_size

    @model_validator(mode="after")
    def _divides(self) -> TrainConfig:
        if self.micro_batch_size is not None and self.batch_size % self.micro_batch_size:
            raise ValueError(
                f"micro_batch_size: {self.micro_batch_size} does not divide batch_size {self.batch_size}; "
                "the rows per update would change"
            )
        return self
