# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# torch's tensors are typed as far as they go; the rest stays inside this file.
"""One token per row, each row with its own settings and its own noise.

The order of the steps is llama.cpp's (top-k, top-p, min-p, then temperature), so that both engines draw from the
same distribution. A token is drawn by the Gumbel-max rule: the largest of logit / temperature + noise wins, and the
noise of a token is a hash of (seed, step, token id). What a row draws does not depend on its neighbours, and a logit
that differs in its last bit changes the draw only at a near tie. (Drawing a point of the cumulative distribution
would turn any swap of two ranks into another text.)

Gumbel-max: Maddison, Tarlow, Minka, "A* sampling" (2014). The hash is SplitMix64 (Steele, Lea, Flood, 2014).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

__all__ = ["Draw", "draw_tokens", "uniform"]

_MOST_RANKS = 1024
"""Up to this top-k the largest logits are picked out; above it the whole vocabulary is sorted."""


@dataclass(frozen=True, slots=True)
class Draw:
    """How a row's tokens are drawn. `top_k` 0 and `top_p` 1 switch the step off; temperature 0 is greedy."""

    temperature: float
    top_p: float
    top_k: int
    min_p: float
    seed: int

    @property
    def ranks(self) -> int | None:
        """How many of the largest logits can be drawn; None: all."""
        if self.temperature <= 0:
            return 1
        return self.top_k if 0 < self.top_k <= _MOST_RANKS else None


def draw_tokens(logits: Any, rows: Sequence[Draw], steps: Sequence[int]) -> list[int]:
    """The next token of every row.

    Args:
        logits: float tensor (rows, vocabulary).
        rows: settings, one a row.
        steps: how many tokens each row has drawn before.
    """
    import torch

    tokens = [0] * len(rows)
    vocabulary = int(logits.shape[-1])
    groups: dict[bool, list[int]] = {}
    for i, row in enumerate(rows):
        groups.setdefault(row.ranks is None, []).append(i)
    for whole, group in groups.items():
        picked = logits if len(group) == len(rows) else logits[torch.tensor(group, device=logits.device)]
        # Sorting 150,000 logits a row costs more than the forward pass; the largest 40 are found in a fraction.
        k = vocabulary if whole else min(vocabulary, max(rows[i].ranks or 1 for i in group))
        values, ids = picked.float().topk(k, dim=-1)
        chosen = _choose(values.cpu().numpy(), ids.cpu().numpy(), [rows[i] for i in group], [steps[i] for i in group])
        for i, token in zip(group, chosen, strict=True):
            tokens[i] = token
    return tokens


def uniform(seeds: Sequence[int], steps: Sequence[int], ids: Any) -> Any:
    """Numbers in (0, 1), one per id: a function of the row's seed, its step and the id."""
    # One step of the generator mixes each ingredient in, so that close seeds and steps have nothing in common.
    state = _mix(_mix(np.asarray(seeds, dtype=np.uint64)) ^ np.asarray(steps, dtype=np.uint64))
    bits = _mix(state[:, None] ^ np.asarray(ids).astype(np.uint64)) >> np.uint64(11)
    return (bits.astype(np.float64) + 0.5) / 2.0**53


def _choose(values: Any, ids: Any, rows: Sequence[Draw], steps: Sequence[int]) -> list[int]:
    """The token of each row, given its largest logits in descending order and their ids, both (rows, k)."""

    def column(numbers: list[float]) -> Any:
        return np.asarray(numbers, dtype=np.float64)[:, None]

    k = values.shape[-1]
    values = values.astype(np.float64)
    keep = np.arange(k) < column([row.ranks or (row.top_k if row.top_k > 0 else k) for row in rows])
    weights = np.where(keep, np.exp(values - values[:, :1]), 0.0)
    probabilities = weights / weights.sum(-1, keepdims=True)
    # top-p keeps the smallest set that reaches p: what stands before a token must still be below it.
    before = probabilities.cumsum(-1) - probabilities
    keep &= before < column([row.top_p if row.top_p < 1 else 2.0 for row in rows])
    keep &= probabilities >= probabilities[:, :1] * column([row.min_p for row in rows])
    keep[:, 0] = True
    noise = -np.log(-np.log(uniform([row.seed for row in rows], steps, ids)))
    scores = values / column([max(row.temperature, 1e-6) for row in rows]) + noise
    best = np.where(keep, scores, -np.inf).argmax(-1)
    return [int(ids[i, place]) for i, place in enumerate(best)]


def _mix(state: Any) -> Any:
    with np.errstate(over="ignore"):
        state = state + np.uint64(0x9E3779B97F4A7C15)
        state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return state ^ (state >> np.uint64(31))
