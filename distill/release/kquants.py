"""Q4_K and Q6_K, the two block formats that the `gguf` package reads but does not write.

Both cut a row into super-blocks of 256 values with one or two half-precision factors, and those into blocks with a
small integer scale each. Q4_K stores x = d s q - m t with q of 4 bits, s and t of 6 bits for 32 values; Q6_K stores
x = d s q with q of 6 bits and s of 8 bits for 16 values. The scale of a block is searched: among a few candidates near
the obvious one, that with the smallest error, weighted so that large values count more, after a least-squares fit.
(Layouts and search: ggml's k-quants, https://github.com/ggml-org/llama.cpp/pull/1684.) Here all blocks of a tensor are
searched at once.
"""

from __future__ import annotations

import gguf
import numpy as np
from numpy.typing import NDArray

__all__ = ["BLOCK", "quantise"]

Floats = NDArray[np.float32]
Bytes = NDArray[np.uint8]

BLOCK = 256
_CHUNK = 4096
"""Super-blocks worked on at once: some tens of megabytes."""

_TINY = np.float32(1e-15)


def quantise(values: Floats, kind: gguf.GGMLQuantizationType) -> NDArray[np.generic]:
    """`values` [rows, columns] in the format `kind`, as rows of bytes (of numbers for the float types).

    Raises:
        ValueError: the columns are no multiple of the format's block.
    """
    if kind not in (gguf.GGMLQuantizationType.Q4_K, gguf.GGMLQuantizationType.Q6_K):
        return gguf.quants.quantize(values, kind)
    if values.shape[-1] % BLOCK:
        raise ValueError(f"{values.shape[-1]} columns are no multiple of {BLOCK}")
    make = _q4_k if kind is gguf.GGMLQuantizationType.Q4_K else _q6_k
    blocks = np.ascontiguousarray(values, np.float32).reshape(-1, BLOCK)
    made = [make(blocks[start : start + _CHUNK]) for start in range(0, len(blocks), _CHUNK)]
    return np.concatenate(made).reshape(*values.shape[:-1], -1)


def _q4_k(x: Floats) -> Bytes:
    n = len(x)
    parts = x.reshape(n, 8, 32)
    weights = np.sqrt((parts**2).mean(-1, keepdims=True)) + np.abs(parts)
    scale, low = _fit_range(parts, weights, 15)
    d, s = _shared(scale, 63)
    m, t = _shared(low, 63)
    step, offset = d[:, None] * s, m[:, None] * t
    with np.errstate(divide="ignore", invalid="ignore"):
        q = np.where(step[..., None] > 0, np.rint((parts + offset[..., None]) / step[..., None]), 0)
    q = np.clip(q, 0, 15).astype(np.uint8)
    pairs = q.reshape(n, 4, 2, 32)
    s_, t_ = s.astype(np.uint8), t.astype(np.uint8)
    scales = np.concatenate(
        [
            s_[:, :4] | (s_[:, 4:] >> 4) << 6,
            t_[:, :4] | (t_[:, 4:] >> 4) << 6,
            (s_[:, 4:] & 15) | (t_[:, 4:] & 15) << 4,
        ],
        axis=1,
    )
    quants = (pairs[:, :, 0] | pairs[:, :, 1] << 4).reshape(n, -1)
    return np.concatenate([_half(d), _half(m), scales, quants], axis=1).astype(np.uint8)


def _q6_k(x: Floats) -> Bytes:
    n = len(x)
    parts = x.reshape(n, 16, 16)
    scale = _fit_centred(parts, 32)
    at = np.abs(scale).argmax(-1)
    largest = scale[np.arange(n), at]
    with np.errstate(divide="ignore", invalid="ignore"):
        inverse = np.where(np.abs(largest) < _TINY, 0, np.float32(-128) / largest).astype(np.float32)
        d = np.where(inverse != 0, 1 / inverse, 0).astype(np.float16).astype(np.float32)
        s = np.minimum(127, np.rint(inverse[:, None] * scale)).astype(np.int8)
        step = (d[:, None] * s)[..., None]
        q = np.where(step != 0, np.rint(parts / step), 0)
    q = (np.clip(q, -32, 31) + 32).astype(np.uint8).reshape(n, 2, 4, 32)
    low = np.stack([q[:, :, 0] & 15 | (q[:, :, 2] & 15) << 4, q[:, :, 1] & 15 | (q[:, :, 3] & 15) << 4], 2)
    high = q[:, :, 0] >> 4 | (q[:, :, 1] >> 4) << 2 | (q[:, :, 2] >> 4) << 4 | (q[:, :, 3] >> 4) << 6
    return np.concatenate([low.reshape(n, -1), high.reshape(n, -1), s.view(np.uint8), _half(d)], axis=1).astype(
        np.uint8
    )


def _fit_range(x: Floats, weights: Floats, most: int) -> tuple[Floats, Floats]:
    """Scale and offset of each block so that x is near scale q - offset, q from 0 to `most`; offset >= 0."""
    low: Floats = np.minimum(x.min(-1), 0)
    high: Floats = x.max(-1)
    flat = high <= low
    sum_w: Floats = weights.sum(-1)
    sum_x: Floats = (weights * x).sum(-1)
    best_scale, best_low = (np.where(flat, 1, high - low) / most).astype(np.float32), low
    q: Floats = np.clip(np.rint((x - low[..., None]) / best_scale[..., None]), 0, most)
    best_error = _error(x, weights, best_scale, q, low)
    for step in range(21):
        # The range begins where the best fit so far puts it.
        inverse = np.float32(most - 1 + 0.1 * step) / np.where(flat, np.float32(1), high - best_low)
        q = np.clip(np.rint((x - best_low[..., None]) * inverse[..., None]), 0, most)
        weighted = weights * q
        sum_q, sum_qq, sum_qx = weighted.sum(-1), (weighted * q).sum(-1), (weighted * x).sum(-1)
        determinant = sum_w * sum_qq - sum_q**2
        with np.errstate(divide="ignore", invalid="ignore"):
            scale: Floats = (sum_w * sum_qx - sum_x * sum_q) / determinant
            offset = (sum_qq * sum_x - sum_q * sum_qx) / determinant
            above = offset > 0  # the format cannot hold it
            scale = np.where(above, sum_qx / sum_qq, scale)
        offset = np.where(above, np.float32(0), offset)
        error = _error(x, weights, scale, q, offset)
        better = (determinant > 0) & (error < best_error)
        best_error = np.where(better, error, best_error)
        best_scale = np.where(better, scale, best_scale)
        best_low = np.where(better, offset, best_low)
    return np.where(flat, 0, best_scale).astype(np.float32), (-np.where(flat, low, best_low)).astype(np.float32)


def _error(x: Floats, weights: Floats, scale: Floats, q: Floats, offset: Floats) -> Floats:
    return (weights * (scale[..., None] * q + offset[..., None] - x) ** 2).sum(-1)


def _fit_centred(x: Floats, half: int) -> Floats:
    """Scale of each block so that x is near scale q, q from -half to half - 1."""
    at = np.abs(x).argmax(-1)[..., None]
    largest = np.take_along_axis(x, at, -1)[..., 0]
    zero = np.abs(largest) < _TINY
    largest = np.where(zero, np.float32(1), largest)
    weights = x * x
    best_scale = np.zeros_like(largest)
    best = np.zeros_like(largest)
    for step in (0, *range(-9, 0), *range(1, 10)):
        inverse = -np.float32(half + 0.1 * step) / largest
        q = np.clip(np.rint(x * inverse[..., None]), -half, half - 1)
        sum_qx, sum_qq = (weights * x * q).sum(-1), (weights * q * q).sum(-1)
        # The error of the best scale falls as (sum_qx)^2 / sum_qq grows.
        better = (sum_qq > 0) & (sum_qx**2 > best * sum_qq)
        with np.errstate(divide="ignore", invalid="ignore"):
            scale = sum_qx / sum_qq
        best_scale = np.where(better, scale, best_scale)
        best = np.where(better, scale * sum_qx, best)
    return np.where(zero, 0, best_scale).astype(np.float32)


def _shared(values: Floats, most: int) -> tuple[Floats, Floats]:
    """One half-precision factor a super-block, and integers from 0 to `most`: their product is near `values`."""
    largest = values.max(-1)
    with np.errstate(divide="ignore", invalid="ignore"):
        inverse = np.where(largest > 0, most / largest, 0).astype(np.float32)
    integers = np.clip(np.rint(inverse[:, None] * values), 0, most).astype(np.float32)
    return (largest / most).astype(np.float16).astype(np.float32), integers


def _half(values: Floats) -> Bytes:
    return np.ascontiguousarray(values, np.float16).view(np.uint8).reshape(len(values), 2)
