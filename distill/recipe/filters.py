"""`filters:` the steps a chain is made of. The code that judges stands in `distill/filters/`."""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import Discriminator, Field, Tag, model_validator

from distill.recipe.base import Section
from distill.recipe.embedding import DiversityStep, SemanticStep
from distill.recipe.quality import (
    AgreementStep,
    CodeStep,
    CopiesStep,
    CustomStep,
    LanguageStep,
    LeakageStep,
    PiiStep,
    RegexStep,
    RepetitionStep,
    ScoreStep,
    ScriptStep,
    TagsStep,
)
from distill.recipe.step import Step as _Step
from distill.recipe.teachers import TeacherConfig

__all__ = [
    "AgreementStep",
    "CodeStep",
    "CopiesStep",
    "CustomStep",
    "DecontaminateStep",
    "DiversityStep",
    "EvalSet",
    "ExactStep",
    "FilterStep",
    "Filters",
    "LanguageStep",
    "LeakageStep",
    "LengthStep",
    "MinHashStep",
    "PiiStep",
    "RefusalStep",
    "RegexStep",
    "RepetitionStep",
    "SchemaStep",
    "ScoreStep",
    "ScriptStep",
    "SemanticStep",
    "TagsStep",
    "TruncationStep",
    "VerdictConfig",
]


class EvalSet(Section):
    """A set that must not leak into training data."""

    path: str
    """JSONL, Parquet or CSV file; the YAML file of an lm-eval task; or `hub:` and the id of a dataset on the hub."""
    field: str | None = None
    """Column with the question. Left out: the user turns of `messages`, else the first of prompt, question, text,
    input."""
    name: str | None = None
    """Name in reports; left out: the file's name."""
    split: str | None = None
    """Split of a task or of a hub dataset. Left out: the task's own, or `test`."""
    config: str | None = None
    """Configuration of a hub dataset."""


class _Deduplicating(_Step):
    against: tuple[EvalSet, ...] = ()
    """Other datasets whose rows must not come again: JSONL, Parquet or CSV files. Without `field` the same fields count
    as in the rows."""
    index: str | None = None
    """Parquet file of the rows that the step has kept, for later runs; made where it is missing. `distill filter`
    extends it. A generation reads it and leaves it as it is, since a run that is resumed must find what it found
    before; what it knows at its end stands in `index/<step>.parquet` of the run, for the next recipe to name."""
    keep: Literal["first", "longest", "best"] = "first"
    """Which row of a group stays. `longest` and `best` hold for every step of the chain. `distill filter` keeps the
    whole file in memory for it; a generation keeps the rows of a round, judges them when its last has come, and lets
    stay what earlier rounds have kept, since those rows are counted and handed out."""
    score: str | None = None
    """Column of numbers for `best`: the row with the highest stays. `scores.margin` is the score of that name in a
    run's rows."""

    @model_validator(mode="after")
    def _scored(self) -> Self:
        if (self.keep == "best") != (self.score is not None):
            raise ValueError("score: names the column for `keep: best`, and goes with nothing else")
        return self


class ExactStep(_Deduplicating):
    """Drops rows whose normalised text came before."""

    kind: Literal["exact"]
    normalise: bool = True
    """Compare without case, punctuation and spacing (Unicode NFKC)."""
    seeds: bool = True
    """Compare with the run's seed examples too."""


class MinHashStep(_Deduplicating):
    """Drops near-duplicates: MinHash LSH finds candidates, true Jaccard similarity decides."""

    kind: Literal["minhash"]
    threshold: float = Field(default=0.7, gt=0, le=1)
    """Jaccard similarity of shingles at which a row is dropped."""
    short_threshold: float = Field(default=0.9, ge=0, le=1)
    """The same for two texts of fewer than 20 words, where one changed word can be the one that counts; the higher of
    the two holds. Likeness to a seed is measured by `threshold` alone."""
    shingle: Literal["auto", "char", "word"] = "auto"
    """Shingle unit. `auto`: characters, words for texts over 300 words."""
    size: int | None = Field(default=None, ge=1, le=32)
    """Characters or words in a shingle. Left out: 5 characters, 3 words."""
    permutations: int = Field(default=128, ge=16, le=512)
    """MinHash values per text, at most: as many are made as finding pairs at the threshold takes."""
    ignore_common: float | None = Field(default=None, gt=0, lt=1)
    """Leave shingles out of account that stand in more than this share of rows, as those of a template do. A file is
    counted on a sample. In a generation the rows that have come so far are counted, at 16 rows, 32, and so on to 4,096;
    before the first count a row is dropped at a similarity of 0.98."""
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
    min_tokens: int | None = Field(default=None, ge=0)
    """Least tokens of `tokenizer`."""
    max_tokens: int | None = Field(default=None, ge=1)
    """Most tokens of `tokenizer`."""
    tokenizer: str | None = None
    """Whose tokens: a model of the catalogue, a folder with a tokenizer.json, or such a file."""

    @model_validator(mode="after")
    def _any(self) -> LengthStep:
        tokens = (self.min_tokens, self.max_tokens)
        if all(v is None for v in (self.min_chars, self.max_chars, self.min_words, self.max_words, *tokens)):
            raise ValueError("min_chars: give at least one bound")
        for unit in ("chars", "words", "tokens"):
            least, most = getattr(self, f"min_{unit}"), getattr(self, f"max_{unit}")
            if least is not None and most is not None and least > most:
                raise ValueError(f"min_{unit}: is greater than max_{unit}")
        if (self.tokenizer is None) != (tokens == (None, None)):
            raise ValueError("tokenizer: goes with min_tokens or max_tokens, and they with it")
        return self


class RefusalStep(_Step):
    """Drops rows in which the model declines to answer or speaks of itself as a model."""

    kind: Literal["refusal"]
    patterns: tuple[str, ...] = ()
    """Further phrases (plain text, any case) that mark a refusal."""


class TruncationStep(_Step):
    """Drops rows whose answer was cut, by its finish reason or by its looks (open fence, bracket, quote)."""

    kind: Literal["truncation"]


class VerdictConfig(Section):
    """A teacher's word on rows that a threshold can only guess about: are the two texts the same problem?"""

    teacher: str | TeacherConfig
    """In a recipe the name of one of its teachers; in a chain for `distill filter` a teacher's own section."""
    zone: tuple[float, float] = (0.75, 1.5)
    """Scores that are doubted, as shares of the threshold: from the first up to below the second. Outside it, and where
    no verdict comes, the threshold decides."""
    max_asks: int = Field(default=1000, ge=1)
    """Most rows that are asked about; those after them are left to the threshold, and counted."""
    usd: Decimal | None = Field(default=None, gt=0)
    """For `distill filter`: most that the verdicts may cost. In a recipe its budget holds."""

    @model_validator(mode="after")
    def _ordered(self) -> VerdictConfig:
        low, high = self.zone
        if not 0 < low <= 1 <= high:
            raise ValueError(f"zone: [{low:g}, {high:g}] does not hold the threshold (1) between its ends")
        return self


class DecontaminateStep(_Step):
    """Drops rows that repeat or retell an item of an eval set."""

    kind: Literal["decontaminate"]
    against: tuple[EvalSet, ...] = ()
    """Eval sets. Left out: the recipe's `eval_sets`, and its holdout."""
    ngram: int = Field(default=8, ge=1, le=64)
    """Words of an n-gram; shorter items are compared whole."""
    overlap: float = Field(default=0.5, gt=0, le=1)
    """Share of the shorter text's n-grams that must be in common."""
    similar: float = Field(default=0.6, gt=0, le=1)
    """Jaccard similarity of three-word runs at which a text just over one n-gram counts as the item; half of it is
    enough from three n-grams on, and a shorter text needs 1.2 times as much."""
    false_positive_rate: float | None = Field(default=None, gt=0, le=0.2)
    """Share of clean rows that may be lost: sets the threshold for paraphrases by the rows themselves, or by `clean`.
    Left out, or for rows that come a few at a time: the threshold is the eval set's own."""
    clean: str | None = None
    """JSONL, Parquet or CSV file of rows that are known to be clean, with the columns of the rows."""
    threshold: float | None = Field(default=None, gt=0, le=1.5)
    """Score at which a text is a paraphrase: cosine plus at most 0.4 for shared numbers. Left out: calibrated, or the
    eval set's own."""
    embeddings: str = "none"
    """Compare sentence embeddings besides: a model's name or folder, `auto` for all-MiniLM-L6-v2 where it is here, or
    `none`. An encoder reads some fifty rows a CPU second."""
    verdict: VerdictConfig | None = None
    """Ask a teacher about rows near the threshold. Costs money, and is remembered like every answer."""


BuiltinStep = Annotated[
    ExactStep
    | MinHashStep
    | SchemaStep
    | LengthStep
    | RefusalStep
    | TruncationStep
    | DecontaminateStep
    | AgreementStep
    | CodeStep
    | CopiesStep
    | CustomStep
    | LanguageStep
    | LeakageStep
    | PiiStep
    | RegexStep
    | RepetitionStep
    | ScoreStep
    | ScriptStep
    | TagsStep
    | SemanticStep
    | DiversityStep,
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
