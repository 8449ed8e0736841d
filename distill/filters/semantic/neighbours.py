"""The nearest kept vector: exact products while they are cheap, lists of neighbours beyond.

A vector is compared with kept ones only (keep first). A product of matrices finds candidates; what decides is the
cosine of the pair itself, in double precision and rounded, so that neither the order of summation nor the way rows
are cut into calls can change a verdict.

Up to `exact_rows` the search is exhaustive. Beyond, kept vectors move in fixed portions, in their order, into inverted
lists (faiss), and only the youngest portion is searched exhaustively. Every 262,144 vectors are written to a temporary
folder and mapped from there, so that the memory they take can be given back while others need it.
"""

from __future__ import annotations

import tempfile
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["EXACT_ROWS", "NeighbourIndex"]

EXACT_ROWS = 65_536
"""Kept rows up to which the search is exhaustive. Over 60,000 vectors of 384 numbers both ways take 0.40 CPU ms a row
(over 10,000 0.11 ms) and find the same; an encoder has taken 3 to 10 ms to embed the row."""

_PORTION = 8_192
_SHARD = 262_144
_LISTS = 1_024
_PROBES = 32  # lists looked into
_ROUNDS = 5  # of k-means
_ARRAY_MAP = 1  # faiss.DirectMap.Array: a vector is found by its number
_CHUNK = 256
_BLOCK = 16_384
_SLACK = 1e-4  # of float32 products, generously
_NEIGHBOURS = 4


class NeighbourIndex:
    """Kept vectors of unit length, numbered from 0."""

    def __init__(
        self, size: int, *, exact_rows: int = EXACT_ROWS, portion: int = _PORTION, shard: int = _SHARD
    ) -> None:
        self._size = size
        self._exact_rows = max(exact_rows, portion)
        self._portion = portion
        self._shard = shard
        self._buffer = np.empty((_CHUNK, size), np.float32)
        self._held = 0  # vectors in the buffer
        self._lists: _Lists | None = None

    def __len__(self) -> int:
        return self._held + (len(self._lists) if self._lists is not None else 0)

    @property
    def nbytes(self) -> int:
        """Memory held, without what is mapped from disk."""
        return self._buffer.nbytes + (self._lists.nbytes if self._lists is not None else 0)

    def judge(
        self, vectors: NDArray[np.float32], threshold: float, *, add: bool = True
    ) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """The most similar kept vector of each, shape (n,): its number and the similarity; -1 and NaN where none
        reaches the threshold. With `add`, these are kept, in order. Zero vectors match nothing and are not kept.
        """
        match = np.full(len(vectors), -1, np.int64)
        score = np.full(len(vectors), np.nan)
        start = 0
        while start < len(vectors):
            start = self._chunk(vectors, start, threshold, add, match, score)
        return match, score

    def _chunk(
        self,
        vectors: NDArray[np.float32],
        start: int,
        threshold: float,
        add: bool,
        match: NDArray[np.int64],
        score: NDArray[np.float64],
    ) -> int:
        """Judge some vectors from `start` on; returns where to go on. Ends early when a portion is full, because what
        comes after it is searched for in another way."""
        part = vectors[start : start + _CHUNK]
        best, similar = self._earlier(part, threshold)
        inner = np.tril(part @ part.T, -1) if add else np.zeros((len(part), len(part)), np.float32)
        hot: NDArray[np.bool_] = np.any(inner >= threshold - _SLACK, axis=1)
        first, room = len(self), self._room()
        fresh: list[int] = []
        filled: NDArray[np.bool_] = np.any(part, axis=1)
        for row in range(len(part)):
            if hot[row]:
                for number, other in enumerate(fresh):
                    if inner[row, other] >= threshold - _SLACK:
                        value = _cosine(part[row], part[other])
                        if value > similar[row]:
                            best[row], similar[row] = first + number, value
            if similar[row] >= threshold:
                match[start + row], score[start + row] = best[row], similar[row]
            elif add and filled[row]:
                fresh.append(row)
                if len(fresh) == room:
                    self._append(part[fresh])
                    self._seal()
                    return start + row + 1
        if fresh:
            self._append(part[fresh])
        return start + len(part)

    def _earlier(self, part: NDArray[np.float32], threshold: float) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Number and similarity of the nearest kept vector; similarity -1 where none comes near the threshold."""
        best, similar = np.full(len(part), -1, np.int64), np.full(len(part), -1.0)
        first = 0
        if self._lists is not None:
            self._lists.search(part, threshold - _SLACK, best, similar)
            first = len(self._lists)
        for low in range(0, self._held, _BLOCK):
            block = self._buffer[low : min(low + _BLOCK, self._held)]
            products = part @ block.T
            top = products.max(axis=1)
            for row in np.flatnonzero(top >= threshold - _SLACK).tolist():
                for column in np.flatnonzero(products[row] >= top[row] - 2 * _SLACK).tolist():
                    value = _cosine(part[row], block[column])
                    if value > similar[row]:
                        best[row], similar[row] = first + low + column, value
        return best, similar

    def _room(self) -> int:
        """Vectors that can be kept before a portion has to move into the lists."""
        limit = self._exact_rows if self._lists is None else self._portion
        return limit - self._held

    def _append(self, vectors: NDArray[np.float32]) -> None:
        needed = self._held + len(vectors)
        if needed > len(self._buffer):
            larger = np.empty((needed + needed // 2, self._size), np.float32)
            larger[: self._held] = self._buffer[: self._held]
            self._buffer = larger
        self._buffer[self._held : needed] = vectors
        self._held = needed

    def _seal(self) -> None:
        """Move everything that is held into the lists."""
        if self._lists is None:
            self._lists = _Lists(self._buffer[: self._held], self._shard)
        self._lists.add(self._buffer[: self._held])
        self._buffer, self._held = np.empty((self._portion, self._size), np.float32), 0


class _Lists:
    """Older kept vectors in inverted lists around centroids of the first of them (faiss IVF, half precision)."""

    def __init__(self, vectors: NDArray[np.float32], shard: int) -> None:
        import faiss

        size = vectors.shape[1]
        lists = max(1, min(_LISTS, len(vectors) // 40))
        self._faiss: Any = faiss
        self._quantizer: Any = faiss.IndexFlatIP(size)
        self._empty: Any = faiss.IndexIVFScalarQuantizer(
            self._quantizer, size, lists, faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT
        )
        self._empty.cp.niter = _ROUNDS
        self._empty.cp.seed = 1
        self._empty.train(vectors)
        self._empty.set_direct_map_type(_ARRAY_MAP)
        self._empty.nprobe = _PROBES
        self._shard = shard
        self._folder = tempfile.TemporaryDirectory(prefix="distill-vectors-")
        self._full: list[tuple[int, Any]] = []
        """First number and lists of what was closed."""
        self._first = 0  # number of the first vector that is not closed
        self._open: Any = self._faiss.clone_index(self._empty)

    def __len__(self) -> int:
        return self._first + int(self._open.ntotal)

    @property
    def nbytes(self) -> int:
        each = self._open.code_size + 3 * 8  # and its number, twice where it is found by it
        return int(self._open.ntotal) * each + int(self._quantizer.ntotal) * self._quantizer.code_size

    def add(self, vectors: NDArray[np.float32]) -> None:
        self._open.add(vectors)
        if self._open.ntotal >= self._shard:
            path = f"{self._folder.name}/{len(self._full)}"
            self._faiss.write_index(self._open, path)
            self._full.append((self._first, self._faiss.read_index(path, self._faiss.IO_FLAG_MMAP)))
            self._first, self._open = len(self), self._faiss.clone_index(self._empty)

    def search(
        self, part: NDArray[np.float32], least: float, best: NDArray[np.int64], similar: NDArray[np.float64]
    ) -> None:
        """Put in number and similarity of the nearest vector where it reaches `least`."""
        for first, lists in (*self._full, (self._first, self._open)):
            products, numbers = lists.search(np.ascontiguousarray(part), _NEIGHBOURS)
            for row, place in np.argwhere((numbers >= 0) & (products >= least)).tolist():
                number = int(numbers[row, place])
                value = _cosine(part[row], lists.reconstruct(number))
                if value > similar[row] or (value == similar[row] and first + number < best[row]):
                    best[row], similar[row] = first + number, value


def _cosine(one: NDArray[np.float32], other: NDArray[np.float32]) -> float:
    a, b = one.astype(np.float64), other.astype(np.float64)
    return round(float(np.dot(a, b) / max(float(np.sqrt(np.dot(a, a) * np.dot(b, b))), 1e-12)), 6)
