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
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from distill.filters.near import kernels
from distill.filters.near.arrays import AHEAD, I64, Out, Rows, Rules, empty_index, grow, scratch
from distill.filters.near.folding import fold_one, folded
from distill.filters.near.ids import Ids
from distill.filters.near.jit import direct
from distill.filters.near.kernels import ADD, CHAR, COMPARE, DECIDE, WORD
from distill.filters.near.signature import agreement, band_values, choose_bands, draw

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
_FULL = 0.75  # share of the table's slots that may be taken
_GROWTH = 1.25
_NONE = np.full(1, -1, np.int64)
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
        self._ids = Ids()
        self._scratch = scratch(0, self.rules)
        self._row, self._out = Rows(np.empty(0, np.uint8), *np.zeros((3, 1), np.int64)), _results(1)
        self._direct: Callable[..., object] | None = None
        """The kernel for one row."""
        self.numbers = np.zeros(0, np.int64)
        """The number under which each text of the last call joined the index; -1 where it did not."""
        self.long_texts = 0
        """Texts seen so far that `auto` took for long."""

    def __len__(self) -> int:
        return int(self._index.counts[0])

    @property
    def nbytes(self) -> int:
        """Memory held."""
        return sum(array.nbytes for array in self._index) + self._ids.nbytes

    def load(self) -> None:
        """Load the kernels (the first time on a machine: compile them), so that no later call has to."""
        rows = folded(["a"])
        self._make_room(rows, COMPARE)
        self._run(rows, _results(1), COMPARE)
        _spread(np.zeros(2048, np.uint64), 1024)

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

    def keys(self, texts: Sequence[str]) -> tuple[NDArray[np.int64], NDArray[np.uint64]]:
        """(numbers of texts, band values): two texts can be compared only if they share a value. A text near the border
        of `auto` has the values of both units."""
        rows, rules = folded(texts), self.rules
        self._make_room(rows, COMPARE)
        owners, units, signatures = list[int](), list[int](), list[NDArray[np.uint32]]()
        for row, words in enumerate(rows.words.tolist()):
            unit = (WORD if words > rules.long else CHAR) if rules.unit < 0 else rules.unit
            border = rules.unit < 0 and rules.long * rules.threshold <= words <= rules.long / rules.threshold
            for each in (unit, WORD - unit)[: 2 if border else 1]:
                if rows.ends[row] > rows.begins[row]:
                    count = self._shingle(rows, row, each)
                    kernels.minima(self._scratch.values, count, rules.a, rules.b, self._scratch.signature)
                    owners.append(row)
                    units.append(each)
                    signatures.append(self._scratch.signature.copy())
        return np.repeat(np.array(owners, np.int64), rules.bands), band_values(signatures, units, rules.bands)

    def _shingle(self, rows: Rows, row: int, unit: int) -> int:
        """Shingles of a row, into the working memory; how many there are."""
        work, begin, end, size = self._scratch, rows.begins[row], rows.ends[row], self.rules.sizes[unit]
        return kernels.shingle(
            rows.data, begin, end, unit, size, self.rules.common, work.points, work.places, work.hashes, work.values
        )

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
        self.leave_out(table)
        return len(common)

    def drop_at(self, threshold: float, short_threshold: float) -> None:
        """Judge by another threshold from now on, not under the one that the bands were chosen for."""
        self.rules = self.rules._replace(
            threshold=float(threshold), short_threshold=float(max(threshold, short_threshold))
        )

    def leave_out(self, table: NDArray[np.uint64]) -> None:
        """Leave the shingles of a hash table (see `Rules.common`) out of account. What is in the index is entered
        again."""
        if not len(table) and not len(self.rules.common):
            return
        kept = list(self.kept())
        self.rules = self.rules._replace(common=table)
        self._index, self._ids = empty_index(), Ids()
        for names, contents in kept:
            self.add(contents, names)

    def _judge(self, texts: Sequence[str], ids: Sequence[str], mode: int) -> list[Match | None]:
        if len(texts) == 1:
            return [self._one(texts[0], ids[0], mode)]
        matches: list[Match | None] = []
        first, self.numbers = 0, np.full(len(texts), -1, np.int64)
        while first < len(texts):
            last, chars = first, 0
            while last < len(texts) and last - first < _CHUNK_ROWS and (chars < _CHUNK_CHARS or last == first):
                chars += len(texts[last])
                last += 1
            matches += self._chunk(texts[first:last], ids[first:last], mode, self.numbers[first:last])
            first = last
        return matches

    def _one(self, text: str, id_: str, mode: int) -> Match | None:
        """The same for one text, without what many are worth: a row comes by itself while a generation runs."""
        folded = fold_one(text)
        self.numbers = _NONE
        if not folded:
            return None
        row, out = self._row._replace(data=np.frombuffer(bytearray(folded), np.uint8)), self._out
        row.ends[0], row.words[0] = len(folded), folded.count(b" ") + 1
        self._make_room(row, mode)
        if self._direct is None:
            self.load()
            self._direct = direct(kernels.judge, row, self.rules, self._index, self._scratch, out, mode, 0)
        self._direct(row, self.rules, self._index, self._scratch, out, mode, 0)
        if out.number[0] >= 0:
            self._ids.append(id_)
            self.numbers = out.number
        return self._match(row, out, 0) if out.match[0] >= 0 else None

    def _match(self, rows: Rows, out: Out, row: int) -> Match:
        number, data, ends = out.match.item(row), rows.data.data, self._index.ends
        own = bytes(data[rows.begins.item(row) : rows.ends.item(row)])
        kept = bytes(self._index.data.data[ends.item(number) : ends.item(number + 1)])
        shared = kept if own == kept else _shared(bytes(data[out.run.item(row, 0) : out.run.item(row, 1)]), kept)
        return Match(self._ids[number], out.similarity.item(row), shared.decode("utf-8"))

    def _chunk(self, texts: Sequence[str], ids: Sequence[str], mode: int, numbers: I64) -> list[Match | None]:
        rows, count, out = folded(texts), len(texts), _results(len(texts))
        self._make_room(rows, mode)
        self._run(rows, out, mode)
        numbers[:] = out.number
        self._ids.extend([ids[row] for row in (out.number >= 0).nonzero()[0].tolist()])
        matches: list[Match | None] = [None] * count
        for row in (out.match >= 0).nonzero()[0].tolist():
            matches[row] = self._match(rows, out, row)
        return matches

    def _run(self, rows: Rows, out: Out, mode: int) -> None:
        """Judge all rows, with more room for groups whenever there is none left."""
        done = 0
        while (done := kernels.judge(rows, self.rules, self._index, self._scratch, out, mode, done)) < len(rows.begins):
            self._make_group_room(len(rows.begins) - done)

    def _make_group_room(self, rows: int) -> None:
        """Room for what the next rows need at most, and all of them are likely to need: few meet a tag that one other
        text has."""
        likely = rows * self.bands.count // 4
        least = 2 * AHEAD * self.bands.count * (self.rules.cap + kernels.FEW)
        grow(self._index.groups, int(self._index.counts[2]) + max(least, likely))

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
        texts, taken, _ = index.counts.tolist()
        # A text near the border of `auto` stands in the index twice.
        taken += self.bands.count * count * (2 if self.rules.unit < 0 else 1)
        before = len(index.slots)
        if taken > _FULL * before:
            index.slots.resize(int(max(taken / _FULL, before * _GROWTH)) + 1, refcheck=False)
            _spread(index.slots, before)
        self._make_group_room(count)
        grow(index.data, int(index.ends[texts]) + size)
        grow(index.ends, texts + count + 1)
        grow(index.bits, texts + count)


def _shared(run: bytes, kept: bytes) -> bytes:
    """The longest run whose shingles stand in the kept text, cut to what stands there in one piece."""
    if run in kept:
        return run.strip()
    # A text may hold one shingle twice, so that a run here is two runs there.
    text, other = run.decode("utf-8"), kept.decode("utf-8")
    most = bisect.bisect_left(range(len(text) + 1), True, key=lambda length: text[:length] not in other)
    return text[: max(most - 1, 0)].strip().encode("utf-8")


def _spread(slots: NDArray[np.uint64], before: int) -> None:
    """Put the first `before` slots of a table that has been made longer where they are now looked for."""
    filled = np.zeros(len(slots) // kernels.LINE, np.uint8)
    kernels.spread(slots, before, filled, np.empty(kernels.waiting(slots, before), np.uint64))


def _results(count: int) -> Out:
    """Room for what is decided of so many rows."""
    return Out(
        match=np.empty(count, np.int64),
        similarity=np.empty(count, np.float64),
        run=np.empty((count, 2), np.int64),
        number=np.empty(count, np.int64),
    )
