"""`filters:` the steps a chain is made of. The code that judges stands in `distill/filters/`."""

from __future__ import annotations

from typing import Annotated, Any, Literal, get_args

from pydantic import Discriminator, Field, Tag, model_validator

from distill.recipe.base import Section

__all__ = [
    "DecontaminateStep",
    "EvalSet",
    "ExactStep",
    "FilterStep",
    "Filters",
    "LengthStep",
    "MinHashStep",
    "RefusalStep",
    "SchemaStep",
    "TruncationStep",
]


class EvalSet(Section):
    """A set that must not leak into training data."""

    path: str
    """JSONL, Parquet or CSV file."""
    field: str | None = None
    """Column with the question. Left out: the user turns of `messages`, else the first of prompt, question, text,
    input."""
    name: str | None = None
    """Name in reports; left out: the file's name."""


class _Step(Section):
    fields: tuple[str, ...] = ()
    """Columns that count: any text column, or `prompt`, `response`, `messages` for the parts of a conversation.
    Left out: the whole row's text."""
    name: str | None = Field(default=None, pattern=r"^[A-Za-z][A-Za-z0-9_-]*$")
    """Name in reports; left out: the kind, numbered when it comes twice."""


class ExactStep(_Step):
    """Drops rows whose normalised text came before."""

    kind: Literal["exact"]
    normalise: bool = True
    """Compare without case, punctuation and spacing (Unicode NFKC)."""
    seeds: bool = True
    """Compare with the run's seed examples too."""


class MinHashStep(_Step):
    """Drops near-duplicates: MinHash LSH finds candidates, true Jaccard similarity decides."""

    kind: Literal["minhash"]
    threshold: float = Field(default=0.7, gt=0, le=1)
    """Jaccard similarity of shingles at which a row is dropped."""
    shingle: Literal["auto", "char", "word"] = "auto"
    """Shingle unit. `auto`: characters, words for texts over 300 words."""
    size: int = Field(default=5, ge=1, le=32)
    """Characters or words in a shingle."""
    permutations: int = Field(default=128, ge=16, le=512)
    """MinHash values per text."""
    seeds: bool = True
    """Compare with the run's seed examples too."""


class SchemaStep(_Step):
    """Drops rows whose assistant turn is not JSON that satisfies a schema."""

    kind: Literal["schema"]
    schema_file: str = Field(alias="schema")
    """JSON Schema file."""


class LengthStep(_Step):
    """Drops rows that are too short or too long."""

    kind: Literal["length"]
    min_chars: int | None = Field(default=None, ge=0)
    """Least characters."""
    max_chars: int | None = Field(default=None, ge=1)
    """Most characters."""
    min_words: int | None = Field(default=None, ge=0)
    """Least words."""
    max_words: int | None = Field(default=None, ge=1)
    """Most words."""

    @model_validator(mode="after")
    def _any(self) -> LengthStep:
        if all(v is None for v in (self.min_chars, self.max_chars, self.min_words, self.max_words)):
            raise ValueError("min_chars: give at least one bound")
        return self


class RefusalStep(_Step):
    """Drops rows in which the model declines to answer or speaks of itself as a model."""

    kind: Literal["refusal"]
    patterns: tuple[str, ...] = ()
    """Further phrases (plain text, any case) that mark a refusal."""


class TruncationStep(_Step):
    """Drops rows whose answer was cut, by its finish reason or by its looks (open fence, bracket, quote)."""

    kind: Literal["truncation"]


class DecontaminateStep(_Step):
    """Drops rows that share text with an eval set."""

    kind: Literal["decontaminate"]
    against: tuple[EvalSet, ...] = ()
    """Eval sets. Left out: the recipe's `eval_sets`, and its holdout."""
    ngram: int = Field(default=8, ge=1, le=64)
    """Words of an n-gram; shorter items are compared whole."""
    overlap: float = Field(default=0.5, gt=0, le=1)
    """Share of the shorter text's n-grams that must be in common."""
    similar: float = Field(default=0.6, gt=0, le=1)
    """Jaccard similarity of three-word runs at which a text of one n-gram counts as the item; half of it is enough from
    three n-grams on."""


BuiltinStep = Annotated[
    ExactStep | MinHashStep | SchemaStep | LengthStep | RefusalStep | TruncationStep | DecontaminateStep,
    Field(discriminator="kind"),
]
FilterStep = BuiltinStep


def _form(value: Any) -> str:
    return "name" if isinstance(value, str) else "steps"


Filters = Annotated[
    Annotated[tuple[FilterStep, ...], Tag("steps")] | Annotated[str, Tag("name")],
    Discriminator(_form),
]
"""Steps, or the name of a chain. Told apart before either is tried, so that a mistake in a step is reported as one."""


def step_kinds() -> dict[str, type[Section]]:
    """Kind -> step model, for messages and documentation."""
    models: tuple[type[Section], ...] = get_args(get_args(BuiltinStep)[0])
    return {get_args(model.model_fields["kind"].annotation)[0]: model for model in models}
