"""`train.distillation:` what the student takes from a teacher's probabilities, beside its texts."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from distill.recipe.base import Section

__all__ = ["DistillationLoss"]


class DistillationLoss(Section):
    """What `method: distill` and `method: on-policy` minimise: the distance to a teacher's next-token distribution."""

    teacher: str | None = None
    """A local teacher of the same vocabulary: a name of the catalogue, or a folder in transformers format. Left out
    (`distill` only): the log-probabilities that stand in the rows, as `sampling.top_logprobs` leaves them there."""
    divergence: Literal["forward-kl", "reverse-kl", "jsd"] = "forward-kl"
    """`forward-kl` covers all the teacher would say, `reverse-kl` seeks what it would say most, `jsd` is between."""
    temperature: float = Field(default=1.0, gt=0)
    """Of both distributions; the divergence is multiplied by its square, so that the gradient keeps its size. Of
    `on-policy` also the temperature of the student's answers."""
    cross_entropy: float = Field(default=0.1, ge=0, lt=1)
    """For `distill`: share of the answer's own cross-entropy in the loss; the rest is the divergence."""
    top_k: int | None = Field(default=None, ge=1)
    """For `distill`: the teacher is asked once, before the training, its so many best tokens of each position are
    kept and its weights are let go. Left out: it stays in memory and is compared over the whole vocabulary."""
    max_tokens: int = Field(default=128, ge=1)
    """For `on-policy`: longest answer of the student."""

    @model_validator(mode="after")
    def _stored(self) -> DistillationLoss:
        if self.teacher is None and self.temperature != 1:
            raise ValueError(
                "temperature: stored log-probabilities are of temperature 1, the rest of the vocabulary is not "
                "known; name a teacher, or leave it out"
            )
        return self
