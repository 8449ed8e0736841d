"""How varied a set of rows is, before and after a choice, in figures and in a picture.

distinct-1, -2     different words and pairs of words, of all (Li et al. 2016). Grows by itself when a set shrinks, so a
                   random choice of the same size stands beside it.
self_similarity    mean cosine of two rows.
nearest            median cosine of a row to its nearest neighbour (at most 4,000 rows are looked at).
effective_number   the Vendi score (Friedman and Dieng 2023): the exponential of the entropy of the eigenvalues of the
                   similarity matrix; as many entirely different rows would be as varied.
groups             values of `by` that are covered, and the rows of the smallest and the largest.
"""

from __future__ import annotations

import html
import itertools
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distill.filters.normalise import plain

__all__ = ["figures", "page"]

_LOOKED_AT = 4_000
_POINTS = 3_000
_BARS = 40
_STYLE = (
    "body{font:14px system-ui,sans-serif;margin:2em auto;max-width:60em}td,th{padding:.2em 1em;text-align:right}"
    "td:first-child{text-align:left}svg{max-width:100%}"
)


def figures(texts: Sequence[str], vectors: NDArray[np.float32], groups: Sequence[str] | None) -> dict[str, Any]:
    """The measures above, of one set."""
    n = len(texts)
    words, pairs, total_words, total_pairs = set[str](), set[tuple[str, str]](), 0, 0
    for text in texts:
        split = plain(text).split()
        words.update(split)
        total_words += len(split)
        total_pairs += max(0, len(split) - 1)
        pairs.update(itertools.pairwise(split))
    found: dict[str, Any] = {
        "rows": n,
        "distinct_1": round(len(words) / max(1, total_words), 4),
        "distinct_2": round(len(pairs) / max(1, total_pairs), 4),
        "self_similarity": _self_similarity(vectors),
        "nearest": _nearest(vectors),
        "effective_number": _effective_number(vectors),
    }
    if groups is not None:
        counts = Counter(groups)
        found["groups"] = {"covered": len(counts), "smallest": min(counts.values()), "largest": max(counts.values())}
    return found


def page(
    title: str,
    sets: dict[str, dict[str, Any]],
    vectors: NDArray[np.float32],
    chosen: NDArray[np.bool_],
    groups: Sequence[str] | None,
) -> str:
    """One HTML page with inline SVG that needs nothing else: figures of the sets, a map of the rows, rows by group."""
    names = [name for name in next(iter(sets.values())) if name != "groups"]
    head = "".join(f"<th>{html.escape(name)}</th>" for name in sets)
    body = "".join(
        f"<tr><td>{html.escape(name)}</td>" + "".join(f"<td>{found[name]:,}</td>" for found in sets.values()) + "</tr>"
        for name in names
    )
    if groups is not None:
        cells = "".join(
            "<td>{covered} ({smallest:,} to {largest:,} rows)</td>".format(**found["groups"]) for found in sets.values()
        )
        body += f"<tr><td>groups covered</td>{cells}</tr>"
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8">'
        f"<title>{html.escape(title)}</title><style>{_STYLE}</style>"
        f"<h1>{html.escape(title)}</h1><table><tr><th></th>{head}</tr>{body}</table>"
        f"<h2>Rows in the two main directions of their embeddings</h2>{_map(vectors, chosen)}"
        + (f"<h2>Rows by group</h2>{_bars(groups, chosen)}" if groups is not None else "")
        + "</html>\n"
    )


def _self_similarity(vectors: NDArray[np.float32]) -> float:
    n = len(vectors)
    if n < 2:
        return 0.0
    total = vectors.sum(axis=0, dtype=np.float64)
    own = float(np.einsum("ij,ij->", vectors, vectors, dtype=np.float64))
    return round((float(total @ total) - own) / (n * (n - 1)), 4)


def _nearest(vectors: NDArray[np.float32]) -> float:
    if len(vectors) < 2:
        return 0.0
    looked = vectors[np.linspace(0, len(vectors) - 1, min(len(vectors), _LOOKED_AT)).astype(np.int64)]
    similar = looked @ looked.T
    np.fill_diagonal(similar, -1)
    return round(float(np.median(similar.max(axis=1))), 4)


def _effective_number(vectors: NDArray[np.float32]) -> float:
    if not len(vectors):
        return 0.0
    # K/n and the d x d matrix of second moments have the same eigenvalues beside zero.
    values = np.linalg.eigvalsh((vectors.T @ vectors).astype(np.float64) / len(vectors))
    values = values[values > 1e-12]
    return round(float(np.exp(-(values * np.log(values)).sum())), 2)


def _map(vectors: NDArray[np.float32], chosen: NDArray[np.bool_]) -> str:
    places = np.linspace(0, len(vectors) - 1, min(len(vectors), _POINTS)).astype(np.int64)
    part = vectors[places] - vectors[places].mean(axis=0)
    axes = np.linalg.eigh((part.T @ part).astype(np.float64))[1][:, -2:]
    spots = part @ axes
    low, high = spots.min(axis=0), spots.max(axis=0)
    spots = (spots - low) / np.maximum(high - low, 1e-9)
    dots = {False: list[str](), True: list[str]()}
    for (x, y), kept in zip(spots.tolist(), chosen[places].tolist(), strict=True):
        dots[kept].append(f'<circle cx="{10 + 780 * x:.1f}" cy="{10 + 480 * y:.1f}" r="2.5"/>')
    return (
        '<svg viewBox="0 0 800 500" role="img" aria-label="chosen rows among all rows">'
        f'<g fill="#bbb">{"".join(dots[False])}</g><g fill="#0a6">{"".join(dots[True])}</g></svg>'
        f"<p>Green: chosen. Grey: not chosen. {len(places):,} of {len(vectors):,} rows are drawn.</p>"
    )


def _bars(groups: Sequence[str], chosen: NDArray[np.bool_]) -> str:
    before = Counter(groups)
    after = Counter(group for group, kept in zip(groups, chosen.tolist(), strict=True) if kept)
    most = max(before.values())
    lines: list[str] = []
    for place, (name, count) in enumerate(before.most_common(_BARS)):
        y, kept = 18 * place, after[name]
        lines.append(
            f'<text x="0" y="{y + 13}" font-size="11">{html.escape(name[:44])}</text>'
            f'<rect x="290" y="{y + 3}" width="{430 * count / most:.1f}" height="12" fill="#bbb"/>'
            f'<rect x="290" y="{y + 3}" width="{430 * kept / most:.1f}" height="12" fill="#0a6"/>'
            f'<text x="{295 + 430 * count / most:.1f}" y="{y + 13}" font-size="11">{kept:,} of {count:,}</text>'
        )
    rest = f"<p>The {_BARS} largest of {len(before):,} groups.</p>" if len(before) > _BARS else ""
    height = 18 * min(len(before), _BARS) + 6
    return f'<svg viewBox="0 0 800 {height}" role="img" aria-label="rows by group">{"".join(lines)}</svg>{rest}'
