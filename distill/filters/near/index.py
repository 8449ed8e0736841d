"""The near-duplicate index: LSH finds candidates, true Jaccard similarity decides, the first text stays.

A text is compared with kept texts only (keep first): a chain of small edits never pulls in a text that is unlike
its survivor, as transitive clusters do. The match that is reported is the earliest kept text at or over the threshold.

Unit of shingles: characters find edits in short texts, where one changed word breaks five word shingles; long texts
need words, because all long texts of a language share many short runs of characters. `auto` takes words above
300 words. Texts near that border stand in the index in both units, so a pair that lies across it is found all the
same; its similarity is measured in the unit of the later text.

Two texts of fewer than 20 words need a higher similarity: one changed word is more than a twentieth of them, and may be
the one that counts ("the current exchange fee", "the current exchange rate").
"""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from distill.filters.near import kernels
from distill.filters.near.arrays import Out, Rows, Rules, empty_index, grow, scratch
from distill.filters.near.folding import folded
from distill.filters.near.kernels import ADD, CHAR, COMPARE, DECIDE, WORD
from distill.filters.near.signature import agreement, choose_bands, draw

__all__ = ["CAP", "CHARS", "LONG", "SHORT", "WORDS", "Match", "NearIndex"]

CAP = 32
"""Kept texts that can be found through one band value. A band shared by very many texts (boilerplate) would make
every later text a candidate of all of them; a text stays findable through its other bands."""
LONG = 300
"""Words over which `auto` takes word shingles."""
SHORT = 20
"""Words from which on `threshold` counts; two shorter texts need `short_threshold`."""
CHARS, WORDS = 5, 3
"""Size of a shingle. Runs of five words would lose a long text at one edit in twenty words: 0.95^5 of them stay, which
is 0.63 in Jaccard similarity; of runs of three words 0.86 stay, which is 0.75."""

_CHUNK_ROWS = 4096
_SAMPLE = 5_000  # texts on which common shingles are counted
_CHUNK_CHARS = 4 << 20
_FULL = 0.8  # share of the table's slots that may be taken
_GROWTH = 1.25
_UNITS = {"auto": -1, "char": CHAR, "word": WORD}


@dataclass(frozen=True, slots=True)
class Match:
    """An earlier text that a text repeats. `shared` is the longest run they have in common, folded."""

    id: str
    similarity: float
    shared: str


class NearIndex:
    """Kept texts, and which of them a new text is too similar to."""

    def __init__(
        self,
        *,
        threshold: float = 0.7,
        unit: Literal["auto", "char", "word"] = "auto",
        size: int | None = None,
        permutations: int = 128,
        short_threshold: float = 0.9,
    ) -> None:
        self.bands = choose_bands(threshold, permutations)
        a, b = draw(self.bands.count * self.bands.rows)
        self.rules = Rules(
            a=a,
            b=b,
            bands=self.bands.count,
            sizes=np.array([size or CHARS, size or WORDS], np.int64),
            unit=_UNITS[unit],
            long=LONG,
            threshold=float(threshold),
            short=SHORT,
            short_threshold=float(max(threshold, short_threshold)),
            agree=agreement(threshold, len(a)),
            cap=CAP,
            common=np.zeros(0, np.uint64),
        )
        self._index = empty_index()
        self._ids = _Ids()
        self._scratch = scratch(0, self.rules)
        self.long_texts = 0
        """Texts seen so far that `auto` took for long."""

    def __len__(self) -> int:
        return int(self._index.counts[0])

    @property
    def nbytes(self) -> int:
        """Memory held."""
        return sum(array.nbytes for array in self._index) + self._ids.nbytes

    def judge(self, texts: Sequence[str], ids: Sequence[str], *, add: bool = True) -> list[Match | None]:
        """The match of each text, or None; with `add`, texts without a match become part of the index.

        Texts are taken in order, as if one by one: the result does not depend on how they are cut into calls.
        A text without any character matches nothing.
        """
        return self._judge(texts, ids, DECIDE if add else COMPARE)

    def add(self, texts: Sequence[str], ids: Sequence[str]) -> None:
        """Make texts part of the index, whatever they are similar to."""
        self._judge(texts, ids, ADD)

    def kept(self, first: int = 0) -> Iterator[tuple[list[str], list[str]]]:
        """(ids, folded texts) of what is in the index, a few thousand at a time."""
        for begin in range(first, len(self), _CHUNK_ROWS):
            numbers = range(begin, min(begin + _CHUNK_ROWS, len(self)))
            ends = self._index.ends[begin : numbers.stop + 1].tolist()
            texts = [self._index.data[a:b].tobytes().decode("utf-8") for a, b in itertools.pairwise(ends)]
            yield [self._ids[number] for number in numbers], texts

    def ignore_common(self, texts: Sequence[str], share: float) -> int:
        """Leave shingles out of account that stand in more than `share` of the texts; how many there are. What is in
        the index is entered again."""
        rows, work = folded(texts[:_SAMPLE]), self._scratch
        sets: list[NDArray[np.uint64]] = []
        for row, words in enumerate(rows.words.tolist()):
            begin, end = int(rows.begins[row]), int(rows.ends[row])
            if end - begin + 64 > len(work.points):
                work = scratch(end - begin, self.rules)
            unit = (WORD if words > LONG else CHAR) if self.rules.unit < 0 else self.rules.unit
            size, none = int(self.rules.sizes[unit]), np.zeros(0, np.uint64)
            count = kernels.shingle(
                rows.data, begin, end, unit, size, none, work.points, work.places, work.hashes, work.values
            )
            sets.append(np.unique(work.hashes[:count]))
        hashes, counts = np.unique(np.concatenate([*sets, np.zeros(0, np.uint64)]), return_counts=True)
        common = hashes[counts > share * max(1, len(sets))]
        table = np.zeros(1 << (2 * len(common) + 1).bit_length(), np.uint64)
        kernels.common_table(common, table)
        kept = list(self.kept())
        self.rules = self.rules._replace(common=table)
        self._index, self._ids = empty_index(), _Ids()
        for names, contents in kept:
            self.add(contents, names)
        return len(common)

    def _judge(self, texts: Sequence[str], ids: Sequence[str], mode: int) -> list[Match | None]:
        matches: list[Match | None] = []
        first = 0
        while first < len(texts):
            last, chars = first, 0
            while last < len(texts) and last - first < _CHUNK_ROWS and (chars < _CHUNK_CHARS or last == first):
                chars += len(texts[last])
                last += 1
            matches += self._chunk(texts[first:last], ids[first:last], mode)
            first = last
        return matches

    def _chunk(self, texts: Sequence[str], ids: Sequence[str], mode: int) -> list[Match | None]:
        rows, count = folded(texts), len(texts)
        self._make_room(rows, mode)
        out = Out(
            match=np.empty(count, np.int64),
            similarity=np.empty(count, np.float64),
            run=np.empty((count, 2), np.int64),
            number=np.empty(count, np.int64),
        )
        kernels.judge(rows, self.rules, self._index, self._scratch, out, mode)
        self._ids.extend([ids[row] for row in (out.number >= 0).nonzero()[0].tolist()])
        matches: list[Match | None] = [None] * count
        for row in (out.match >= 0).nonzero()[0].tolist():
            number, begin, end = int(out.match[row]), int(rows.begins[row]), int(rows.ends[row])
            shared = self._shared(rows.data, begin, end, out.run[row].tolist(), number)
            matches[row] = Match(self._ids[number], float(out.similarity[row]), shared)
        return matches

    def _shared(self, data: NDArray[np.uint8], begin: int, end: int, run: list[int], number: int) -> str:
        """The longest run whose shingles stand in the kept text, cut to what stands there in one piece."""
        kept = self._index.data[self._index.ends[number] : self._index.ends[number + 1]].tobytes()
        own = data[begin:end].tobytes()
        if own == kept:
            return own.decode("utf-8")
        shared = data[run[0] : run[1]].tobytes()
        if shared in kept:
            return shared.decode("utf-8").strip()
        # A text may hold one shingle twice, so that a run here is two runs there.
        text, other = shared.decode("utf-8"), kept.decode("utf-8")
        most = bisect.bisect_left(range(len(text) + 1), True, key=lambda length: text[:length] not in other)
        return text[: max(most - 1, 0)].strip()

    def _make_room(self, rows: Rows, mode: int) -> None:
        count, size = len(rows.begins), len(rows.data)
        longest = size if count == 1 else int((rows.ends - rows.begins).max(initial=0))
        if self.rules.unit < 0 and size > 2 * LONG:
            self.long_texts += int(np.count_nonzero(rows.words > LONG))
        if longest + 64 > len(self._scratch.points):
            self._scratch = scratch(longest, self.rules)
        if mode == COMPARE:
            return
        index = self._index
        texts, taken = index.counts.tolist()
        # A text near the border of `auto` stands in the index twice.
        taken += self.bands.count * count * (2 if self.rules.unit < 0 else 1)
        before = len(index.slots)
        if taken > _FULL * before:
            index.slots.resize(int(max(taken / _FULL, before * _GROWTH)) + 1, refcheck=False)
            kernels.spread(index.slots, before)
        grow(index.data, int(index.ends[texts]) + size)
        grow(index.ends, texts + count + 1)
        grow(index.units, texts + count)
        grow(index.bits, texts + count)


class _Ids:
    """Strings in one growing buffer: an eighth of the memory of a list of short strings."""

    def __init__(self) -> None:
        self._data = bytearray()
        self._ends = np.zeros(1 << 8, np.int64)
        self._count = 0

    @property
    def nbytes(self) -> int:
        return len(self._data) + self._ends.nbytes

    def __getitem__(self, number: int) -> str:
        return self._data[self._ends[number] : self._ends[number + 1]].decode("utf-8")

    def extend(self, ids: list[str]) -> None:
        if not ids:
            return
        encoded = [id_.encode("utf-8") for id_ in ids]
        grow(self._ends, self._count + len(ids) + 1)
        lengths = np.fromiter(map(len, encoded), np.int64, len(encoded))
        self._ends[self._count + 1 : self._count + 1 + len(ids)] = len(self._data) + np.cumsum(lengths)
        self._data += b"".join(encoded)
        self._count += len(ids)
