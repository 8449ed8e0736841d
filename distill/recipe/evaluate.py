"""`evaluate:` what proves the gain."""

from __future__ import annotations

from pydantic import Field

from distill.recipe.base import Section

__all__ = ["EvaluateConfig"]


class EvaluateConfig(Section):
    """A frozen holdout and the metrics counted on it."""

    holdout: str
    """JSONL of `messages` ending before the answer, `answer`, optional `leaf`."""
    metrics: tuple[str, ...] = ("json_valid", "exact_match")
    """Names, with options after a colon: `macro_f1:field=intent`."""
    max_tokens: int = Field(default=128, ge=1)
    """Longest answer of the student."""
    batch_size: int = Field(default=32, ge=1)
    """Prompts generated at once."""
    latency_items: int = Field(default=8, ge=0)
    """Items answered one at a time to measure latency; 0 leaves it out."""
    schema_file: str | None = Field(default=None, alias="schema")
    """JSON Schema that a valid answer satisfies."""
    base: bool = True
    """Score the untrained student too."""
    teacher: str | None = None
    """Teacher of the recipe that is scored on the same holdout."""
    teacher_system: str | None = None
    """Prompt file of the system turn the teacher gets instead of the student's (its zero-shot instructions)."""
    systems: dict[str, str] = Field(default_factory=dict[str, str])
    """What else is scored, by name: a model, an adapter, a .gguf file, `run:ID`, `release:NAME`, `URL#MODEL`."""
    general: str | None = None
    """General questions that base and student are asked too, for what was forgotten (`general/questions.jsonl`)."""
    machine_usd_per_hour: float | None = Field(default=None, ge=0)
    """What an hour of this machine costs: the price of answers that it makes by itself."""
    judge: str | None = None
    """Teacher of the recipe that judges, where `judge` or `judge_pairwise` names none."""
    against: str | None = None
    """Name of the system that differences are measured from; left out: the first."""
    gates: tuple[str, ...] = ()
    """Conditions such as `macro_f1 >= 0.8`, `p95_ms <= 800` or `leaf_drop(macro_f1, release:NAME@1) <= 0.03`; one that
    fails ends the command with exit code 4."""
