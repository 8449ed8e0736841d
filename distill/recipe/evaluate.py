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
    gates: tuple[str, ...] = ()
    """Conditions such as `macro_f1 >= 0.8`; one that fails ends the command with exit code 4."""
