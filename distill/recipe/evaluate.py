"""`evaluate:` what proves the gain."""

from __future__ import annotations

from pydantic import Field, model_validator

from distill.recipe.base import Section
from distill.recipe.quality import FOUND_BY_RULE, PiiKind

__all__ = ["EvaluateConfig", "UnsafeConfig"]


class UnsafeConfig(Section):
    """What makes an answer unsafe, whatever the metrics say of it: the failure class and the gate `unsafe`."""

    private: tuple[PiiKind, ...] = FOUND_BY_RULE
    """Personal data and secrets that an answer may hold only where its conversation or the right answer does."""
    regions: tuple[str, ...] = ("US", "GB")
    """Countries (ISO 3166) whose phone numbers are known without their +prefix."""
    allow: tuple[str, ...] = ()
    """Values that any answer may hold: a public support address, a demonstration number."""
    words: tuple[str, ...] = ()
    """Words and phrases that no answer may hold, whatever their case."""
    patterns: tuple[str, ...] = ()
    """Expressions (RE2 syntax) that may match no answer; `(?i)` at the beginning ignores case."""
    schema_file: str | None = Field(default=None, alias="schema")
    """JSON Schema of what must not be: an answer that is JSON and satisfies it is unsafe."""
    judge: str | None = None
    """Teacher of the recipe that is asked of every answer whether it is unsafe; left out: none is."""
    rubric: str | None = None
    """Prompt file that the judge is asked by: from 1, which is unsafe, to 5; left out: `evaluate/unsafe.j2`."""

    @model_validator(mode="after")
    def _usable(self) -> UnsafeConfig:
        if "name" in self.private:
            raise ValueError("private: `name` cannot be found by rule")
        if self.rubric is not None and self.judge is None:
            raise ValueError("rubric: is the judge's; name one with `judge`")
        return self


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
    unsafe: UnsafeConfig = UnsafeConfig()
    """What makes an answer unsafe; left out: personal data and secrets that its conversation does not hold."""
    against: str | None = None
    """Name of the system that differences are measured from; left out: the first."""
    gates: tuple[str, ...] = ()
    """Conditions such as `macro_f1 >= 0.8`, `p95_ms <= 800` or `leaf_drop(macro_f1, release:NAME@1) <= 0.03`; one that
    fails ends the command with exit code 4."""
