"""`embedding_similarity`: does the prediction mean what the answer means?

The cosine of their embeddings, with the models and the cache of the semantic filter. It says nothing of right and
wrong in detail (a number or a "not" moves it little): a metric for free text, beside others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from distill.evaluate.holdout import Item
from distill.evaluate.metrics.base import Counted, Metric, shares, with_answers
from distill.filters.semantic.embedding import DEFAULT_MODEL, load_embedder, resolve_model

__all__ = ["EmbeddingSimilarity"]


@dataclass(frozen=True)
class EmbeddingSimilarity(Metric):
    """The mean cosine of prediction and answer; 0 for an empty prediction."""

    RANGE: ClassVar[tuple[float, float]] = (-1.0, 1.0)

    model: str = DEFAULT_MODEL
    folder: Path = Path()

    def check(self, items: Sequence[Item]) -> None:
        resolve_model(self.model, self.folder)

    def count(self, items: Sequence[Item], predictions: Sequence[str]) -> Counted:
        embedder = load_embedder(self.model, folder=self.folder)
        vectors = embedder.embed([*(item.answer for item in items), *predictions])
        cosines = np.einsum("ij,ij->i", vectors[: len(items)], vectors[len(items) :], dtype=np.float64)
        cosines[[not text.strip() for text in predictions]] = 0.0
        return shares(cosines, with_answers(items))

    def definition(self) -> str:
        return f"cosine of the {self.model} embeddings of prediction and answer, mean over items"
