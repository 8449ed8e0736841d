"""Filter steps that work on embeddings: `semantic` and `diversity`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from distill.recipe.step import NamedStep, Step

__all__ = ["DiversityStep", "SemanticStep"]

_MODEL = "all-MiniLM-L6-v2"


class SemanticStep(Step):
    """Drops rows that say the same as an earlier one in other words: cosine similarity of embeddings."""

    kind: Literal["semantic"]
    model: str = _MODEL
    """Embedding model: a name of the catalogue, `static` (fast, sees words rather than meaning), or a local folder of
    sentence-transformers or model2vec."""
    threshold: Literal["auto"] | Annotated[float, Field(gt=0, le=1)] = "auto"
    """Cosine similarity at which a row is dropped. `auto`: set by the rows themselves, so that at most `rate` of the
    rows that repeat nothing are lost; where rows lie too close for that, nothing is dropped, and it is said."""
    rate: float = Field(default=0.01, gt=0, le=0.2)
    """Share of unrelated rows that `auto` may lose."""
    apart: str | None = None
    """Column (a label, an intent, a leaf) whose different values make rows unrelated, whatever they look like: `auto`
    is then measured between such rows."""
    seeds: bool = True
    """Compare with the run's seed examples too."""


class DiversityStep(NamedStep):
    """Chooses the rows that cover most, when all others have been judged: the last step of a chain. In a run the rows
    that are not chosen stay kept, since they were counted towards their quotas and handed out: `rows.parquet` has them
    all, `dataset/` the chosen ones. So `plan.target` is the number of rows to choose from."""

    kind: Literal["diversity"]
    keep: int | float = Field(gt=0)
    """Rows to keep: a number of rows, or a share below 1."""
    by: str | None = None
    """Column (a label, a leaf) whose values get equal quotas; what a small one cannot fill goes to the others."""
    fields: tuple[str, ...] = ()
    """Columns that count: any text column, or `prompt`, `response`, `messages` for the parts of a conversation.
    Left out: the whole row's text."""
    method: Literal["farthest", "facility"] = "farthest"
    """`farthest`: each row as far as possible from those chosen before (reaches the edges). `facility`: the rows that
    all others are closest to (represents the middle; up to 20,000 rows a value of `by`)."""
    score: str | None = None
    """Column with a number: better rows are preferred among equally distant ones."""
    model: str = _MODEL
    """Embedding model, as in `semantic`."""

    @model_validator(mode="after")
    def _whole(self) -> DiversityStep:
        if self.keep >= 1 and self.keep != int(self.keep):
            raise ValueError("keep: a whole number of rows, or a share below 1")
        return self
