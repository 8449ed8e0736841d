"""Steps that judge a row by itself: its privacy, its form, its language, its scores."""

from __future__ import annotations

from typing import Any, Literal, get_args

from pydantic import Field, model_validator

from distill.recipe.step import NamedStep, Step

__all__ = [
    "FOUND_BY_RULE",
    "AgreementStep",
    "CodeStep",
    "CopiesStep",
    "CustomStep",
    "LanguageStep",
    "LeakageStep",
    "PiiKind",
    "PiiStep",
    "RegexStep",
    "RepetitionStep",
    "ScoreStep",
    "ScriptStep",
    "TagsStep",
]

PiiKind = Literal[
    "private_key",
    "credentials",
    "api_key",
    "secret",
    "credit_card",
    "iban",
    "ssn",
    "national_id",
    "email",
    "phone",
    "ip",
    "name",
]
"""From the gravest on."""
FOUND_BY_RULE = tuple(kind for kind in get_args(PiiKind) if kind != "name")


class PiiStep(Step):
    """Masks personal data and secrets, or drops the rows that hold them. Evidence and reports never repeat a value."""

    kind: Literal["pii"]
    fields: tuple[str, ...] = ()
    """Columns that are searched and masked; left out: every column that holds text, at any depth, but `id`."""
    action: Literal["mask", "drop"] = "mask"
    """`mask` writes `[EMAIL_1]` for a value, the same for the same value throughout a row. `drop` rejects the row, and
    masks what is written of it."""
    kinds: tuple[PiiKind, ...] = Field(default=FOUND_BY_RULE, min_length=1)
    """What is looked for."""
    regions: tuple[str, ...] = ("US", "GB")
    """Countries (ISO 3166) whose phone numbers are known without their +prefix."""
    allow: tuple[str, ...] = ()
    """Values that may stay: a public support address, a demonstration number."""
    model: str | None = None
    """spaCy pipeline, installed or in a folder, that finds the people of kind `name`."""

    @model_validator(mode="after")
    def _named(self) -> PiiStep:
        if "name" in self.kinds and self.model is None:
            raise ValueError("model: kind `name` needs a spaCy pipeline, such as en_core_web_sm")
        if self.model is not None and "name" not in self.kinds:
            raise ValueError("model: is used for kind `name` only; add it to `kinds`")
        return self


class RegexStep(Step):
    """Drops rows by regular expressions (RE2 syntax, which takes linear time on any text)."""

    kind: Literal["regex"]
    must: tuple[str, ...] = ()
    """Expressions that a row must match, every one of them."""
    must_not: tuple[str, ...] = ()
    """Expressions that a row must not match."""
    ignore_case: bool = False
    """Whether case makes no difference."""

    @model_validator(mode="after")
    def _any(self) -> RegexStep:
        if not self.must and not self.must_not:
            raise ValueError("must: give at least one expression, here or in must_not")
        return self


class TagsStep(Step):
    """Drops rows whose answer lacks required tags, such as `<answer>…</answer>`."""

    kind: Literal["tags"]
    tags: tuple[str, ...] = Field(min_length=1)
    """Names of the tags: each must open and close exactly once, hold text, and stand in this order."""


class CodeStep(Step):
    """Drops rows whose code does not parse. Python, JSON, YAML and TOML are parsed; nothing is run."""

    kind: Literal["code"]
    languages: tuple[Literal["python", "json", "yaml", "toml"], ...] = Field(
        default=("python", "json", "yaml", "toml"), min_length=1
    )
    """Languages of fenced blocks that must parse; blocks of other languages are not judged."""
    unfenced: Literal["python", "json", "yaml", "toml"] | None = None
    """Language of a text without any fence; left out: such a text holds no code."""
    required: bool = False
    """Whether a row without code is dropped."""


class RepetitionStep(Step):
    """Drops rows that repeat themselves. The measures are those of Gopher (Rae et al. 2021, table A1)."""

    kind: Literal["repetition"]
    ngram: int = Field(default=5, ge=2, le=16)
    """Words of an n-gram."""
    max_ngrams: float = Field(default=0.3, gt=0, le=1)
    """Share of the words that may stand in n-grams that came before in the row."""
    max_lines: float = Field(default=0.3, gt=0, le=1)
    """Share of the lines that may repeat an earlier one; looked at from five lines on."""
    max_run: int = Field(default=8, ge=2)
    """Times that one to four words may stand in a row without a break."""
    min_words: int = Field(default=20, ge=1)
    """Shorter texts are judged by `max_run` and `max_lines` only."""


class LanguageStep(Step):
    """Drops rows in another language. fastText's lid.176 finds it; very short texts are kept."""

    kind: Literal["language"]
    languages: tuple[str, ...] = Field(min_length=1)
    """ISO 639-1 codes of the languages that stay."""
    min_score: float = Field(default=0.5, ge=0, le=1)
    """Certainty from which another language drops a row."""
    min_letters: int = Field(default=20, ge=1)
    """Letters under which a text says too little to be judged."""


class ScriptStep(Step):
    """Drops rows whose letters stand in other scripts."""

    kind: Literal["script"]
    scripts: tuple[str, ...] = Field(min_length=1)
    """Unicode scripts that stay: Latin, Cyrillic, Greek, Han, Arabic, …"""
    min_share: float = Field(default=0.9, gt=0, le=1)
    """Least share of letters in these scripts."""


class LeakageStep(Step):
    """Drops rows that give away their instructions: words of the system turn or of a prompt template in the answer,
    control tokens of a chat format, placeholders that were never filled in."""

    kind: Literal["leakage"]
    instructions: tuple[str, ...] = ()
    """Prompt files (Jinja or plain text) whose words may not stand in a row."""
    min_words: int = Field(default=8, ge=3, le=64)
    """Words in a run that make a leak."""
    phrases: tuple[str, ...] = ()
    """Further text (any case) that marks a leak."""


class CopiesStep(NamedStep):
    """Drops rows whose answer says what the question says."""

    kind: Literal["copies"]
    threshold: float = Field(default=0.8, gt=0, le=1)
    """Share of the answer's words, in runs of three or more, that the question holds too."""
    min_words: int = Field(default=8, ge=3)
    """Words under which an answer is dropped only when it is the question."""


class AgreementStep(NamedStep):
    """Drops rows whose label is in doubt: samples, teachers or annotators disagree."""

    kind: Literal["agreement"]
    columns: tuple[str, ...] = Field(min_length=1)
    """Columns with one label each, or one column with a list of labels."""
    min: float = Field(default=1.0, gt=0, le=1)
    """Least share of the labels that agree."""
    label: str | None = None
    """Column with the label that is taught: it must be the one most agree on."""
    missing: Literal["drop", "keep"] = "drop"
    """What becomes of a row with fewer than two labels."""


class ScoreStep(NamedStep):
    """Drops rows by a number that they carry, such as a judge's score."""

    kind: Literal["score"]
    column: str
    """Column of numbers; `scores.quality` is the entry `quality` of the column `scores`."""
    min: float | None = None
    """Least value that stays."""
    max: float | None = None
    """Greatest value that stays."""
    missing: Literal["drop", "keep"] = "drop"
    """What becomes of a row without a value."""

    @model_validator(mode="after")
    def _bounds(self) -> ScoreStep:
        if self.min is None and self.max is None:
            raise ValueError("min: give at least one bound, here or in max")
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError("min: is greater than max")
        return self


class CustomStep(Step):
    """A filter that another package registers as an entry point of the group `distill.filters`."""

    kind: Literal["custom"]
    filter: str
    """Name of the entry point."""
    options: dict[str, Any] = Field(default_factory=dict[str, Any])
    """What the filter takes."""
