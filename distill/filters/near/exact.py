"""Rows that were there before, word for word."""

# Arrow's arrays are generic over types that only run time knows.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportUnknownParameterType=false, reportMissingTypeArgument=false
from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import cast

import numpy as np
import pyarrow as pa
import xxhash
from numpy.typing import NDArray

from distill.filters.base import Verdicts
from distill.filters.near.digests import Digests
from distill.filters.near.ids import Ids
from distill.filters.near.known import Forgotten, other_rows, read_index, write_index
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
        self._seen, self._ids, self._forgotten = Digests(), Ids(), Forgotten()
        self._seeds = {key: id_ for id_, text in reversed(seeds if step.seeds else ()) if (key := self._key(text))}
        for names, contents in other_rows(step.against, step.fields, folder):
            self._know(names, [self._key(text) for text in contents])
        self._others = len(self._seen)
        if self._index is not None:
            for names, digests in read_index(self._index, self._kind, step.fields):
                self._know(names, [bytes.fromhex(digest) for digest in digests])

    def judge(self, rows: pa.Table) -> Verdicts:
        return self.judge_prepared(rows, self.prepare(rows))

    def prepare(self, rows: pa.Table) -> pa.Array:
        """The digest of each row's text; empty for a row without any."""
        return pa.array([self._key(content) for content in texts(rows, self._fields)], pa.binary())

    def judge_prepared(self, rows: pa.Table, prepared: pa.Array) -> Verdicts:
        verdicts, names = Verdicts.kept(rows.num_rows), ids(rows)
        keys = cast("list[bytes]", prepared.to_pylist())
        # A seed is a question: with no fields named it is the row's prompt that may copy it.
        prompts = texts(rows, self._fields or ("prompt",)) if self._seeds else []
        for row, prompt in enumerate(prompts):
            if (seed := self._seeds.get(self._key(prompt))) is not None:
                verdicts.drop(row, "copies_seed", excerpt(prompt), seed, 1.0)
        left = np.flatnonzero(verdicts.keep).tolist()
        first = len(self._seen)
        numbers = self._know([names[row] for row in left], [keys[row] for row in left])
        kept = np.full(rows.num_rows, -1, np.int64)
        new = [row for row, number in zip(left, numbers, strict=True) if number < 0 and keys[row]]
        kept[new] = first + np.arange(len(new))
        shown: list[str] | None = None
        for row, number in zip(left, numbers, strict=True):
            if number >= 0:
                shown = shown or texts(rows, self._fields)
                verdicts.drop(row, "duplicate", excerpt(shown[row]), self._ids[number], 1.0)
        return verdicts if self._index is None else replace(verdicts, numbers=kept)

    @property
    def nbytes(self) -> int:
        return self._seen.nbytes + self._ids.nbytes

    def keys(self, rows: pa.Table) -> tuple[NDArray[np.int64], NDArray[np.uint64]]:
        """Half of each digest; a row without text has none."""
        digests = cast("list[bytes]", self.prepare(rows).to_pylist())
        owners = np.array([row for row, digest in enumerate(digests) if digest], np.int64)
        return owners, np.frombuffer(b"".join(digest[:8] for digest in digests), np.uint64)

    def forget(self, numbers: NDArray[np.int64]) -> None:
        self._forgotten.add(numbers)

    def save(self, folder: Path | None = None) -> None:
        """Write the index file, where the step names one: what was kept, without the other datasets."""
        if self._index is not None:
            path = self._index if folder is None else folder / f"{self.name}.parquet"
            write_index(path, self._kind, self._fields, self._forgotten.left(self._kept(), self._others))

    def _know(self, names: Sequence[str], keys: Sequence[bytes]) -> list[int]:
        """The number of the earlier text of each key; -1 for a new one, which gets a number, and for none."""
        found, added = self._seen.find(keys), list[str]()
        for row, key in enumerate(keys):
            if found[row] < 0 and key:
                found[row] = self._seen.recent(key)
                if found[row] < 0:
                    self._seen.add(key)
                    added.append(names[row])
        self._ids.extend(added)
        return found

    def _kept(self) -> Iterator[tuple[list[str], list[str]]]:
        number = self._others
        for digests in self._seen.since(self._others):
            yield [self._ids[number + place] for place in range(len(digests))], [key.hex() for key in digests]
            number += len(digests)

    def _key(self, text: str) -> bytes:
        comparable = self._plain(text)
        return xxhash.xxh3_128_digest(comparable.encode("utf-8")) if comparable else b""
