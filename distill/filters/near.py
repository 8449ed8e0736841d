"""The near-duplicate index: LSH finds candidates, true Jaccard similarity decides, the first text stays.

A text is compared with kept texts only (keep first): a chain of small edits never pulls in a text that is unlike
its survivor, as transitive clusters do. The match that is reported is the earliest kept text at or over the threshold.

Unit of shingles: characters find edits in short texts, where one changed word breaks five word shingles; long texts
need words, because all long texts of a language share many short runs of characters. `auto` takes words above
300 words. Texts near that border stand in both indexes, so a pair that lies across it is found all the same; its
similarity is measured in the unit of the later text.
"""

from __future__ import annotations

import bisect
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from distill.filters.bands import CAP, BandIndex
from distill.filters.normalise import fold
from distill.filters.shingles import Shingles, char_shingles, shared_run, similarity, word_shingles
from distill.filters.signature import Signer, choose_bands

__all__ = ["Match", "NearIndex"]

Unit = Literal["char", "word"]

_LONG = 300  # words over which `auto` takes word shingles
_CHUNK_ROWS = 256  # texts sketched at once: their arrays stay in the processor's cache
_CHUNK_CHARS = 400_000


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
        size: int = 5,
        permutations: int = 128,
    ) -> None:
        self.bands = choose_bands(threshold, permutations)
        self._threshold = threshold
        self._unit = unit
        self._size = size
        signer = Signer(self.bands)
        units: tuple[Unit, ...] = ("char", "word") if unit == "auto" else (unit,)
        self._planes = {name: _Plane(name, size, signer) for name in units}
        self._texts = _Store()
        self._ids = _Store()

    def __len__(self) -> int:
        return len(self._texts)

    def judge(self, texts: Sequence[str], ids: Sequence[str], *, add: bool = True) -> list[Match | None]:
        """The match of each text, or None; with `add`, texts without a match become part of the index.

        Texts are taken in order, as if one by one: the result does not depend on how they are cut into calls.
        A text without any character matches nothing.
        """
        matches: list[Match | None] = []
        folded = [fold(text) for text in texts]
        first = 0
        while first < len(folded):
            last, chars = first, 0
            while last < len(folded) and last - first < _CHUNK_ROWS and (chars < _CHUNK_CHARS or last == first):
                chars += len(folded[last])
                last += 1
            matches += self._chunk(folded[first:last], ids[first:last], add)
            first = last
        return matches

    def _chunk(self, texts: list[str], ids: Sequence[str], add: bool) -> list[Match | None]:
        matches: list[Match | None] = [None] * len(texts)
        sketches = [sketch for plane in self._planes.values() if (sketch := self._sketch(plane, texts)) is not None]
        for sketch in sketches:
            self._match_earlier(sketch, texts, matches)
        if not add:
            return matches
        self._settle(sketches, texts, ids, matches)
        self._add(texts, ids, sketches, matches)
        return matches

    def _sketch(self, plane: _Plane, texts: list[str]) -> _Sketch | None:
        """Shingles and tags of the texts that this plane holds or judges."""
        if self._unit == "auto":
            words = np.fromiter((text.count(" ") + 1 for text in texts), np.int64, len(texts))
            judged = words > _LONG if plane.unit == "word" else words <= _LONG
            # A similar text can be longer or shorter by the threshold at most.
            near = words >= _LONG * self._threshold if plane.unit == "word" else words <= _LONG / self._threshold
        else:
            judged = near = np.ones(len(texts), bool)
        near = near & np.fromiter(map(bool, texts), bool, len(texts))
        rows = np.flatnonzero(near)
        if not len(rows):
            return None
        shingles = plane.shingles([texts[row] for row in rows])
        tags = plane.signer.tags(shingles)
        return _Sketch(plane, rows, judged[rows], shingles, tags)

    def _match_earlier(self, sketch: _Sketch, texts: list[str], matches: list[Match | None]) -> None:
        places, earlier, sketch.found = sketch.plane.index.lookup(sketch.tags)
        wanted = sketch.judged[places]
        places, earlier = places[wanted], sketch.plane.members(earlier[wanted])
        if not len(places):
            return
        kept = _KeptSets(sketch.plane, self._texts, sorted(set(earlier.tolist())))
        for place, number in zip(places.tolist(), earlier.tolist(), strict=True):
            row = int(sketch.rows[place])
            if matches[row] is not None:
                continue  # pairs come sorted: an earlier text has matched already
            own, other = sketch.set_of(row), kept[number]
            similar = similarity(own, other)
            if similar >= self._threshold:
                shared = self._shared(sketch, texts[row], row, other, self._texts[number])
                matches[row] = Match(self._ids[number], similar, shared)

    def _settle(
        self, sketches: list[_Sketch], texts: list[str], ids: Sequence[str], matches: list[Match | None]
    ) -> None:
        """Compare the chunk's rows with each other. A row that is reached without a match is kept, and takes with it
        the later rows like it; so each is compared with kept rows only, the earliest first."""
        for sketch in sketches:
            sketch.find_groups()
        rows = sorted({int(sketch.rows[place]) for sketch in sketches for place in sketch.groups_of})
        for row in rows:
            if matches[row] is not None:
                continue
            for sketch in sketches:
                for other in sketch.later_rows_like(row):
                    if matches[other] is not None:
                        continue
                    similar = similarity(sketch.set_of(row), sketch.set_of(other))
                    if similar >= self._threshold:
                        shared = self._shared(sketch, texts[other], other, sketch.set_of(row), texts[row])
                        matches[other] = Match(ids[row], similar, shared)

    def _shared(self, sketch: _Sketch, text: str, row: int, kept: NDArray[np.uint64], kept_text: str) -> str:
        """The longest run of `text` whose shingles stand in the kept text, cut to what stands there in one piece."""
        if text == kept_text:
            return text
        begin, length = shared_run(sketch.shingles.of(sketch.place[row]), kept)
        if not length:
            return ""
        if sketch.plane.unit == "char":
            run = text[begin : begin + length + self._size - 1]
        else:
            run = " ".join(text.split(" ")[begin : begin + length + self._size - 1])
        if run not in kept_text:
            # A text may hold one shingle twice, so that a run here is two runs there.
            most = bisect.bisect_left(range(len(run) + 1), True, key=lambda length: run[:length] not in kept_text)
            run = run[: max(most - 1, 0)]
        return run.strip()

    def _add(self, texts: list[str], ids: Sequence[str], sketches: list[_Sketch], matches: list[Match | None]) -> None:
        first = len(self._texts)
        numbers = np.full(len(texts), -1, np.int64)
        for row, text in enumerate(texts):
            if matches[row] is None and text:
                numbers[row] = first
                first += 1
                self._texts.append(text)
                self._ids.append(ids[row])
        for sketch in sketches:
            kept = np.flatnonzero(numbers[sketch.rows] >= 0)
            sketch.plane.add(numbers[sketch.rows[kept]], sketch.tags[kept], sketch.linked[kept])


class _Plane:
    """The texts compared in one unit. A plane numbers its texts itself; `members` are their numbers in the index."""

    def __init__(self, unit: Unit, size: int, signer: Signer) -> None:
        self.unit: Unit = unit
        self.signer = signer
        self.index = BandIndex(signer.bands.count)
        self._size = size
        self._members = array("q")

    def shingles(self, texts: list[str]) -> Shingles:
        return (char_shingles if self.unit == "char" else word_shingles)(texts, self._size)

    def members(self, places: NDArray[np.int64]) -> NDArray[np.int64]:
        return np.frombuffer(self._members, np.int64)[places] if len(places) else places

    def add(self, numbers: NDArray[np.int64], tags: NDArray[np.uint32], linked: NDArray[np.bool_]) -> None:
        self._members.extend(numbers.tolist())
        self.index.add(tags, linked)


class _KeptSets:
    """Shingle sets of kept texts, made from the texts again when they are needed: holding them would take four times
    the memory of the texts. A block is made at once, and few blocks are held."""

    _BLOCK, _HELD = 128, 8

    def __init__(self, plane: _Plane, texts: _Store, numbers: list[int]) -> None:
        self._plane, self._texts, self._numbers = plane, texts, numbers
        self._place = {number: place for place, number in enumerate(numbers)}
        self._blocks: dict[int, dict[int, NDArray[np.uint64]]] = {}

    def __getitem__(self, number: int) -> NDArray[np.uint64]:
        block = self._place[number] // self._BLOCK
        if block not in self._blocks:
            if len(self._blocks) >= self._HELD:
                self._blocks.clear()
            numbers = self._numbers[block * self._BLOCK : (block + 1) * self._BLOCK]
            shingles = self._plane.shingles([self._texts[each] for each in numbers])
            self._blocks[block] = {each: shingles.set_of(place) for place, each in enumerate(numbers)}
        return self._blocks[block][number]


class _Sketch:
    """One chunk in one plane. `rows` are the chunk's rows that are in it, `judged` those that it decides."""

    def __init__(
        self,
        plane: _Plane,
        rows: NDArray[np.int64],
        judged: NDArray[np.bool_],
        shingles: Shingles,
        tags: NDArray[np.uint32],
    ) -> None:
        self.plane, self.rows, self.judged, self.shingles, self.tags = plane, rows, judged, shingles, tags
        self.found = np.zeros(tags.shape, np.int64)
        self.linked = np.ones(tags.shape, bool)
        self.groups_of: dict[int, list[_Group]] = {}
        self.place = {int(row): place for place, row in enumerate(rows)}
        self._sets: dict[int, NDArray[np.uint64]] = {}

    def set_of(self, row: int) -> NDArray[np.uint64]:
        if row not in self._sets:
            self._sets[row] = self.shingles.set_of(self.place[row])
        return self._sets[row]

    def find_groups(self) -> None:
        """Which rows of the chunk share a band with each other."""
        self.linked = self.found < CAP
        flat = self.tags.ravel()
        # Tag and entry in one number: sorting numbers is several times faster than sorting their places.
        both = (flat.astype(np.uint64) << np.uint64(32)) | np.arange(len(flat), dtype=np.uint64)
        both.sort()
        order, ordered = (both & np.uint64(0xFFFFFFFF)).astype(np.int64), both >> np.uint64(32)
        same = ordered[1:] == ordered[:-1]
        if not same.any():
            return
        # Runs of equal tags: a run begins where an entry equals the next but not the one before.
        edges = np.flatnonzero(np.diff(np.concatenate(([False], same, [False])).astype(np.int8)))
        for begin, end in zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True):
            entries = order[begin : end + 1]
            group = _Group(entries, int(self.found.ravel()[entries[0]]))
            for entry in entries.tolist():
                self.groups_of.setdefault(entry // self.tags.shape[1], []).append(group)

    def later_rows_like(self, row: int) -> list[int]:
        """The rows after a kept row that share a band with it and are decided here."""
        place = self.place.get(row)
        if place is None:
            return []
        bands = self.tags.shape[1]
        later: set[int] = set()
        for group in self.groups_of.get(place, ()):
            own = group.entries[group.entries // bands == place]
            if group.kept >= CAP:
                self.linked.ravel()[own] = False
                continue
            group.kept += 1
            later.update((group.entries // bands).tolist())
        return [int(self.rows[other]) for other in sorted(later) if other > place and self.judged[other]]


@dataclass(slots=True)
class _Group:
    """Entries (place * bands + band) of one chunk with the same tag, and how many kept texts have it so far."""

    entries: NDArray[np.int64]
    kept: int


class _Store:
    """Texts in one growing buffer: an eighth of the memory of a list of short strings."""

    def __init__(self) -> None:
        self._data = bytearray()
        self._ends = array("Q", [0])

    def __len__(self) -> int:
        return len(self._ends) - 1

    def __getitem__(self, number: int) -> str:
        return self._data[self._ends[number] : self._ends[number + 1]].decode("utf-8")

    def append(self, text: str) -> None:
        self._data += text.encode("utf-8")
        self._ends.append(len(self._data))
