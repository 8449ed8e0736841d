"""Rows that were there before, word for word."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from pathlib import Path

import pyarrow as pa
import xxhash

from distill.filters.base import Verdicts
from distill.filters.near.known import other_rows, read_index, write_index
from distill.filters.normalise import excerpt, plain
from distill.filters.text import ids, texts
from distill.recipe import ExactStep

__all__ = ["ExactFilter"]


class ExactFilter:
    """Drops a row whose text came before, in an earlier row, another dataset (`duplicate`) or a seed (`copies_seed`).

    Texts are known by 128-bit digests; the first row with a text stays. Rows without any text are kept: emptiness is
    for `length` to judge.
    """

    def __init__(
        self, step: ExactStep, name: str = "exact", *, seeds: Sequence[tuple[str, str]] = (), folder: Path = Path()
    ) -> None:
        self.name = name
        self._fields = step.fields
        self._plain = plain if step.normalise else str
        self._kind = "exact" if step.normalise else "exact-as-written"
        self._index = folder / Path(step.index).expanduser() if step.index else None
        self._seen: dict[bytes, str] = {}
        self._seeds = {key: id_ for id_, text in reversed(seeds if step.seeds else ()) if (key := self._key(text))}
        for names, contents in other_rows(step.against, step.fields, folder):
            for id_, text in zip(names, contents, strict=True):
                if key := self._key(text):
                    self._seen.setdefault(key, id_)
        self._others = len(self._seen)
        if self._index is not None:
            for names, digests in read_index(self._index, self._kind, step.fields):
                for id_, digest in zip(names, digests, strict=True):
                    self._seen.setdefault(bytes.fromhex(digest), id_)

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

    def save(self) -> None:
        """Write the index file, where the step names one: what was kept, without the other datasets."""
        if self._index is not None:
            kept = list(islice(self._seen.items(), self._others, None))
            write_index(self._index, self._kind, self._fields, [([i for _, i in kept], [k.hex() for k, _ in kept])])

    def _key(self, text: str) -> bytes:
        comparable = self._plain(text)
        return xxhash.xxh3_128_digest(comparable.encode("utf-8")) if comparable else b""
