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

from distill.io.memory import page_out

__all__ = ["Int8Linear", "Seen", "parts_of", "quantise", "works"]

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
        parts: the inputs are cut into so many, each with scales of its own: a huge value costs its own part precision
            and no other.
    """

    def __init__(self, layer: Any, seen: Seen, parts: int = 1) -> None:
        super().__init__()
        # Found once: looking for the right one among its overloads takes as long as a small product.
        self._product: Any = torch.ops.onednn.qlinear_pointwise.default
        self._parts: list[tuple[Any, Any]] = []
        for part in layer.weight.detach().chunk(parts, 1):
            scale = (part.abs().amax(1).float() / 127).clamp_min(1e-12)
            rounded = (part.float() / scale.unsqueeze(1)).round_().to(torch.int8)
            self._parts.append((torch.ops.onednn.qlinear_prepack(rounded, None), scale))
        self._zeros = torch.zeros(layer.out_features, dtype=torch.int64)
        self._bias = None if layer.bias is None else layer.bias.detach().clone()
        self._seen = seen

    def forward(self, x: Any) -> Any:
        rounded, steps = self._seen.rounded(x, len(self._parts))
        kind = x.dtype if len(self._parts) == 1 else torch.float32
        total: Any = None
        for place, (weight, scale) in enumerate(self._parts):
            y = self._product(
                rounded[place], 1.0, _ZERO, weight, scale, self._zeros, None, 1.0, 0, kind, "none", [], ""
            )
            total = y.mul_(steps[place]) if total is None else total.addcmul_(y, steps[place])
        if self._bias is not None:
            total.add_(self._bias)
        return total.to(x.dtype).view(*x.shape[:-1], -1)


class Seen:
    """The activation rounded last: query, key and value take the same one, and so do gate and up."""

    def __init__(self) -> None:
        self._of: tuple[Any, int] = (None, 0)
        self._result: tuple[Any, Any] = (None, None)

    def rounded(self, x: Any, parts: int) -> tuple[Any, Any]:
        """(parts, tokens, in / parts) unsigned bytes and (parts, tokens, 1) scales."""
        if x is not self._of[0] or parts != self._of[1]:
            rows = x.reshape(-1, parts, x.shape[-1] // parts).transpose(0, 1)
            low, high = torch.aminmax(rows, dim=-1, keepdim=True)
            step = torch.maximum(high, -low).float().clamp_min_(1e-12).div_(127)
            # Half is added because the cast cuts.
            self._result = ((rows / step).add_(_ZERO + 0.5).to(torch.uint8).contiguous(), step)
            self._of = (x, parts)
        return self._result


def quantise(model: Any) -> int:
    """Replace the large layers of the model's body, one at a time; how many were."""
    seen = Seen()
    count = 0
    for parent in list(model.modules()):
        for name, layer in list(parent.named_children()):
            if name in _LAYERS and isinstance(layer, nn.Linear):
                setattr(parent, name, Int8Linear(layer, seen, parts_of(layer.in_features, _LAYERS[name])))
                page_out(layer.weight.data_ptr(), layer.weight.nbytes)
                count += 1
    # What stays is copied out of the weights' file: as long as one tensor lies in its mapping, the mapping is there.
    for parameter in model.parameters():
        parameter.data = parameter.data.clone()
    return count


def parts_of(inputs: int, width: int | None) -> int:
    """Equal parts of about `width` inputs."""
    most = 1 if width is None else max(1, inputs // width)
    return next(parts for parts in range(most, 0, -1) if inputs % parts == 0)


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
