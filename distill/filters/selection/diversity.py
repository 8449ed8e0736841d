"""Choosing k of n rows so that little of what the n say is lost.

First the quotas: every value of a column (a leaf of the taxonomy) gets the same number of rows, and what a small one
cannot fill goes to the others. Then, within each, on embeddings:

    farthest    farthest-point selection (Gonzalez 1985): begin at the row nearest to the middle, then always take the
                row that is farthest from all chosen ones. Reaches the edges; no two chosen rows are near-duplicates as
                long as others are left.
    facility    facility location (greedy, with lazy gains: Minoux 1978): take the row that brings all rows closest to
                a chosen one. Represents dense regions; leaves outliers out.

A score weighs distances and gains from half (worst) to whole (best). Groups of more than 4,096 rows are cut into
pieces along their main direction, and every piece gives its share, so the work grows with n and not with its square.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

__all__ = ["choose", "quotas"]

_PIECE = 4_096


def choose(
    vectors: NDArray[np.float32],
    count: int,
    *,
    groups: Sequence[str] | None = None,
    scores: NDArray[np.float64] | None = None,
    method: Literal["farthest", "facility"] = "farthest",
) -> NDArray[np.int64]:
    """The places of `count` rows (all of them when there are no more), ascending. The same input gives the same rows.

    Args:
        vectors: shape (n, d), rows of unit length.
        groups: the value of each row whose rows get equal quotas.
        scores: shape (n,), higher is better; NaN counts as the worst.
    """
    n = len(vectors)
    if count >= n:
        return np.arange(n, dtype=np.int64)
    weights = _weights(scores, n)
    members = _members(groups, n)
    allowed = quotas([len(rows) for rows in members], count)
    pick = _farthest if method == "farthest" else _facility
    chosen: list[NDArray[np.int64]] = []
    for rows, quota in zip(members, allowed, strict=True):
        pieces = _pieces(vectors, rows)
        for piece, part in zip(pieces, _shares([len(p) for p in pieces], quota), strict=True):
            if part:
                chosen.append(piece[pick(vectors[piece], part, weights[piece])])
    return np.sort(np.concatenate(chosen)) if chosen else np.zeros(0, np.int64)


def quotas(sizes: Sequence[int], count: int) -> list[int]:
    """`count` shared out evenly over groups of these sizes; none gets more than it has."""
    result = [0] * len(sizes)
    left = min(count, sum(sizes))
    # Small groups first: what they cannot fill is shared by those that follow.
    order = sorted(range(len(sizes)), key=lambda group: (sizes[group], group))
    for place, group in enumerate(order):
        result[group] = min(sizes[group], left // (len(order) - place))
        left -= result[group]
    return result


def _shares(sizes: Sequence[int], count: int) -> list[int]:
    """`count` shared out in proportion to the sizes (largest remainders)."""
    total = sum(sizes)
    exact = [count * size / total for size in sizes]
    result = [int(value) for value in exact]
    order = sorted(range(len(sizes)), key=lambda piece: (result[piece] - exact[piece], piece))
    for piece in order[: count - sum(result)]:
        result[piece] += 1
    return result


def _members(groups: Sequence[str] | None, n: int) -> list[NDArray[np.int64]]:
    if groups is None:
        return [np.arange(n, dtype=np.int64)]
    found: dict[str, list[int]] = {}
    for row, value in enumerate(groups):
        found.setdefault(value, []).append(row)
    return [np.array(found[value], np.int64) for value in sorted(found)]


def _weights(scores: NDArray[np.float64] | None, n: int) -> NDArray[np.float32]:
    if scores is None or not np.isfinite(scores).any():
        return np.ones(n, np.float32)
    low, high = float(np.nanmin(scores)), float(np.nanmax(scores))
    filled = np.where(np.isfinite(scores), scores, low)
    share = (filled - low) / (high - low) if high > low else np.ones(n)
    return (0.5 + 0.5 * share).astype(np.float32)


def _pieces(vectors: NDArray[np.float32], rows: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    if len(rows) <= _PIECE:
        return [rows]
    part = vectors[rows]
    part = part - part.mean(axis=0)
    direction = part[0] + 1e-3
    for _ in range(8):  # power iteration: the main direction, nearly
        direction = part.T @ (part @ direction)
        direction /= max(float(np.linalg.norm(direction)), 1e-12)
    order = np.argsort(part @ direction, kind="stable")
    half = len(rows) // 2
    return _pieces(vectors, np.sort(rows[order[:half]])) + _pieces(vectors, np.sort(rows[order[half:]]))


def _farthest(vectors: NDArray[np.float32], count: int, weights: NDArray[np.float32]) -> NDArray[np.int64]:
    middle = vectors.mean(axis=0)
    row = int(np.argmax((vectors @ middle) * weights))
    distance = np.full(len(vectors), np.inf, np.float32)
    chosen = np.empty(count, np.int64)
    taken = np.zeros(len(vectors), bool)
    for place in range(count):
        chosen[place] = row
        taken[row] = True
        np.minimum(distance, 1 - vectors @ vectors[row], out=distance)
        worth = np.maximum(distance, 0) * weights
        worth[taken] = -1
        row = int(np.argmax(worth))
    return chosen


def _facility(vectors: NDArray[np.float32], count: int, weights: NDArray[np.float32]) -> NDArray[np.int64]:
    similar = np.maximum(vectors @ vectors.T, 0)
    best = np.zeros(len(vectors), np.float32)  # similarity of each row to the nearest chosen one
    gains = similar.sum(axis=1) * weights
    heap = [(-float(gain), row) for row, gain in enumerate(gains)]
    heapq.heapify(heap)
    chosen: list[int] = []
    while len(chosen) < count:
        # Gains only fall, so a row whose new gain still leads is the best one.
        _, row = heapq.heappop(heap)
        gain = float(np.maximum(similar[row] - best, 0).sum() * weights[row])
        if heap and gain < -heap[0][0]:
            heapq.heappush(heap, (-gain, row))
            continue
        chosen.append(row)
        np.maximum(best, similar[row], out=best)
    return np.array(chosen, np.int64)
