"""Rows that were there before, word for word."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa
import xxhash

from distill.filters.base import Verdicts
from distill.filters.normalise import excerpt, plain
from distill.filters.text import ids, texts
from distill.recipe import ExactStep

__all__ = ["ExactFilter"]


class ExactFilter:
    """Drops a row whose text came before, in an earlier row (`duplicate`) or in a seed (`copies_seed`).

    Texts are known by 128-bit digests; the first row with a text stays. Rows without any text are kept: emptiness is
    for `length` to judge.
    """

    def __init__(self, step: ExactStep, name: str = "exact", *, seeds: Sequence[tuple[str, str]] = ()) -> None:
        self.name = name
        self._fields = step.fields
        self._plain = plain if step.normalise else str
        self._seen: dict[bytes, str] = {}
        self._seeds = {key: id_ for id_, text in reversed(seeds if step.seeds else ()) if (key := self._key(text))}

    def judge(self, rows: pa.Table) -> Verdicts:
        verdicts = Verdicts.kept(rows.num_rows)
        contents, names = texts(rows, self._fields), ids(rows)
        # A seed is a question: with no fields named it is the row's prompt that may copy it.
        prompts = texts(rows, self._fields or ("prompt",)) if self._seeds else contents
        for row, (content, prompt) in enumerate(zip(contents, prompts, strict=True)):
            if self._seeds and (seed := self._seeds.get(self._key(prompt))) is not None:
                verdicts.drop(row, "copies_seed", excerpt(prompt), seed, 1.0)
                continue
            key = self._key(content)
            if key in self._seen:
                verdicts.drop(row, "duplicate", excerpt(content), self._seen[key], 1.0)
            elif key:
                self._seen[key] = names[row]
        return verdicts

    def _key(self, text: str) -> bytes:
        comparable = self._plain(text)
        return xxhash.xxh3_128_digest(comparable.encode("utf-8")) if comparable else b""
