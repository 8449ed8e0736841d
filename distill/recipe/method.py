"""`method:` how one slot becomes rows."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import Field, model_validator

from distill.recipe.base import Section

__all__ = ["Check", "MethodConfig", "PreferenceConfig", "ReasoningConfig", "ResponseConfig"]


class _Overrides(Section):
    system: str | None = None
    """Prompt file of the system turn that stands in the row, and that the student will be trained on."""
    temperature: float | None = Field(default=None, ge=0, le=5)
    """Over the teacher's own."""
    max_tokens: int | None = Field(default=None, ge=1)
    """Over the teacher's own."""
    raise_max_tokens: bool = False
    """When an answer is cut at max_tokens, ask once more with twice as many."""


class ResponseConfig(_Overrides):
    """Response distillation.

    One step: the rendered `prompt` is the user turn and the teacher's answer the assistant turn.
    Two steps: the teacher writes the user turn from `input` first; then it answers it (`prompt`, in which
    `input` is a variable), or the answer is known by construction (`label`, rendered without a call).
    """

    kind: Literal["response"] = "response"
    teacher: str
    """Name of the teacher that answers."""
    prompt: str | None = None
    """Prompt file of the question put to the teacher."""
    input: str | None = None
    """Prompt file that makes the teacher write the user turn."""
    input_teacher: str | None = None
    """Teacher that writes the user turn; left out: `teacher`."""
    items: int = Field(default=1, ge=1, le=50)
    """User turns asked for in one call to `input` (variable `n` in the prompt), as a JSON list of strings."""
    label: str | None = None
    """Prompt file that renders the assistant turn from the slot alone."""
    samples: int = Field(default=1, ge=1, le=64)
    """Answers per prompt; each becomes a row."""
    schema_file: str | None = Field(default=None, alias="schema")
    """JSON Schema file that the assistant turn must satisfy."""

    @model_validator(mode="after")
    def _steps(self) -> ResponseConfig:
        if self.prompt is None and self.input is None:
            raise ValueError("prompt: needed, unless `input` and `label` are given")
        if self.label is not None and (self.input is None or self.prompt is not None):
            raise ValueError("label: goes with `input` and without `prompt`")
        if self.items > 1 and self.input is None:
            raise ValueError("items: needs `input`")
        if self.samples > 1 and self.label is not None:
            raise ValueError("samples: a label is the same every time; ask for more `items`")
        return self


class Check(Section):
    """How a final answer is verified."""

    kind: Literal["numeric", "exact", "json_schema"]
    """`numeric`: equal as numbers; `exact`: equal as normalised text; `json_schema`: satisfies the schema."""
    against: str | None = None
    """Where the known answer stands: `labels.NAME` of the slot, or `seed.NAME` of its first seed."""
    schema_file: str | None = Field(default=None, alias="schema")
    """For json_schema: the schema file."""
    tolerance: float = Field(default=1e-6, ge=0)
    """For numeric: relative difference that counts as equal."""

    @model_validator(mode="after")
    def _whole(self) -> Check:
        if self.against is not None and not re.fullmatch(r"(labels|seed)\.\S+", self.against):
            raise ValueError(f"against: write labels.NAME or seed.NAME, not {self.against!r}")
        if self.kind == "exact" and self.against is None:
            raise ValueError("against: needed for `exact`: labels.NAME or seed.NAME")
        if (self.kind == "json_schema") != (self.schema_file is not None):
            raise ValueError("schema: needed for `json_schema`, and only there")
        if self.kind == "json_schema" and self.against is not None:
            raise ValueError("against: `json_schema` compares with nothing")
        return self


class ReasoningConfig(_Overrides):
    """Chain-of-thought distillation with rejection sampling."""

    kind: Literal["reasoning"] = "reasoning"
    teacher: str
    """Name of the teacher that reasons."""
    prompt: str
    """Prompt file of the question."""
    input: str | None = None
    """Prompt file that makes the teacher write the question first (variable `input` in `prompt`)."""
    samples: int = Field(default=1, ge=1, le=64)
    """Chains drawn per question."""
    answer: Literal["last_line", "boxed", "tag", "after", "json", "all"] = "last_line"
    """Where it stands: the last line, a LaTeX box, `<answer>` tags, after `marker`, a JSON object, or everything."""
    marker: str = "####"
    """For `after`: the text before the final answer."""
    field: str | None = None
    """For `json`: the member with the final answer; the others are the chain. Left out: the whole object."""
    check: Check | None = None
    """How answers are verified. Left out: nothing is rejected."""
    keep: Literal["shortest", "all", "majority", "first"] = "first"
    """Of the verified chains: the shortest, all, one of the majority answer (self-consistency), or the first."""
    min_agreement: float = Field(default=0.5, ge=0, le=1)
    """For `majority`: share of samples that must agree."""

    @model_validator(mode="after")
    def _field_of_json(self) -> ReasoningConfig:
        if self.field is not None and self.answer != "json":
            raise ValueError("field: goes with `answer: json`")
        return self


class PreferenceConfig(_Overrides):
    """Preference distillation: candidates, judged in both orders, pairs with a margin."""

    kind: Literal["preference"] = "preference"
    prompt: str
    """Prompt file of the question."""
    input: str | None = None
    """Prompt file that makes the first candidate teacher write the question (variable `input` in `prompt`)."""
    candidates: tuple[str, ...] = Field(min_length=1)
    """Teachers that answer; a local student may be one of them."""
    temperatures: tuple[float, ...] = (0.7,)
    """Each candidate teacher answers once at each temperature."""
    judge: str
    """Teacher that judges."""
    judge_temperature: float | None = Field(default=0.0, ge=0, le=5)
    """Temperature of the judge; `null`: the teacher's own."""
    judge_prompt: str
    """Prompt file of the judge (variables `question`, `a`, `b` for pairwise; `question`, `answer` for rubric)."""
    mode: Literal["pairwise", "rubric"] = "pairwise"
    """`pairwise`: A against B in both orders; `rubric`: a score from 1 to 10 for each alone."""
    margin: float = Field(default=1.0, ge=0)
    """rubric: least difference of scores. pairwise: least difference of wins."""
    pairs: Literal["best_worst", "all"] = "best_worst"
    """Pairs kept per question."""

    @model_validator(mode="after")
    def _two(self) -> PreferenceConfig:
        if len(self.candidates) * len(self.temperatures) < 2:
            raise ValueError("candidates: at least two answers are needed: add a teacher or a temperature")
        if self.temperature is not None and self.input is None:
            raise ValueError("temperature: candidates answer at `temperatures`; this one is for `input` alone")
        return self


MethodConfig = Annotated[ResponseConfig | ReasoningConfig | PreferenceConfig, Field(discriminator="kind")]
