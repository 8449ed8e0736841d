# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# torch's operators for 8 bits carry no types; the rest stays inside this file.
"""Matrix products in 8 bits, for processors that do them twice as fast as bfloat16 (AVX512-VNNI, AMX).

A weight is rounded once, with one scale for each output; an activation as it comes, with one scale for each token; sums
are exact (32 bits). The layer that closes a gated MLP takes products, a few of them huge: its inputs are cut into parts
with scales of their own, as llama.cpp does everywhere. The head stays as it is: what is lost there is lost in the draw.
What all this changes is measured by `python -m benchmarks int8`.

The operators are those that torch's own quantisation for x86 lowers to. They are no public interface, so `works` tries
them on a small product first, and where they are missing or wrong the model stays in bfloat16.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

__all__ = ["Int8Linear", "Seen", "quantise", "works"]

_LAYERS = {
    **dict.fromkeys(("q_proj", "k_proj", "v_proj", "qkv_proj", "o_proj", "gate_proj", "up_proj", "gate_up_proj")),
    "down_proj": 512,
}
"""Name in the llama, qwen, gemma, mistral and phi families -> inputs that share their scales (None: all). A layer of
another name keeps its precision."""

_ZERO = 128
"""An activation of nought: the fast operator takes unsigned bytes."""


class Int8Linear(nn.Module):
    """Stands in for a `torch.nn.Linear`: (..., in) -> (..., out), in the type of what comes in.

    Args:
        width: inputs that share their scales; left out: all. A huge value costs its own part precision and no other.
    """

    def __init__(self, layer: Any, seen: Seen, width: int | None = None) -> None:
        super().__init__()
        self._width = width or layer.in_features
        self._parts: list[tuple[Any, Any]] = []
        for part in layer.weight.detach().split(self._width, 1):
            scale = (part.abs().amax(1).float() / 127).clamp_min(1e-12)
            rounded = (part.float() / scale.unsqueeze(1)).round_().to(torch.int8)
            self._parts.append((torch.ops.onednn.qlinear_prepack(rounded, None), scale))
        self._zeros = torch.zeros(layer.out_features, dtype=torch.int64)
        self._bias = None if layer.bias is None else layer.bias.detach()
        self._seen = seen

    def forward(self, x: Any) -> Any:
        total: Any = None
        kind = x.dtype if len(self._parts) == 1 else torch.float32
        for (weight, scale), (rounded, step) in zip(self._parts, self._seen.rounded(x, self._width), strict=True):
            y = torch.ops.onednn.qlinear_pointwise(
                rounded, 1.0, _ZERO, weight, scale, self._zeros, None, 1.0, 0, kind, "none", [], ""
            )
            total = y.mul_(step) if total is None else total.addcmul_(y, step)
        if self._bias is not None:
            total.add_(self._bias)
        return total.to(x.dtype).view(*x.shape[:-1], -1)


class Seen:
    """The activation rounded last: query, key and value take the same one, and so do gate and up."""

    def __init__(self) -> None:
        self._of: tuple[Any, int] = (None, 0)
        self._parts: list[tuple[Any, Any]] = []

    def rounded(self, x: Any, width: int) -> list[tuple[Any, Any]]:
        """For each part of `width` inputs: (tokens, width) unsigned bytes and (tokens, 1) scales."""
        if x is not self._of[0] or width != self._of[1]:
            self._parts = []
            for rows in x.reshape(-1, x.shape[-1]).split(width, 1):
                low, high = torch.aminmax(rows, dim=1, keepdim=True)
                scale = torch.maximum(high, -low).float().clamp_min_(1e-12).div_(127)
                # Half is added because the cast cuts.
                self._parts.append(((rows / scale).add_(_ZERO + 0.5).to(torch.uint8), scale))
            self._of = (x, width)
        return self._parts


def quantise(model: Any) -> int:
    """Replace the large layers of the model's body, one at a time; how many were."""
    seen = Seen()
    count = 0
    for parent in list(model.modules()):
        for name, layer in list(parent.named_children()):
            if name in _LAYERS and isinstance(layer, nn.Linear):
                setattr(parent, name, Int8Linear(layer, seen, _LAYERS[name]))
                count += 1
    return count


def works() -> bool:
    """Whether the operators are there and right: a small product against the same in float32."""
    draw = torch.Generator().manual_seed(0)
    layer: Any = nn.utils.skip_init(nn.Linear, 64, 32)
    with torch.no_grad():
        layer.weight.copy_(torch.randn(32, 64, generator=draw))
        layer.bias.copy_(torch.randn(32, generator=draw))
        x = torch.randn(8, 64, generator=draw)
        try:
            found = Int8Linear(layer, Seen())(x)
        except (RuntimeError, AttributeError, NotImplementedError):
            return False
        wanted = layer(x)
        return bool((found - wanted).norm() < 0.03 * wanted.norm())
