# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false, reportUnknownParameterType=false, reportMissingParameterType=false
# torch's autograd functions and peft's layers are untyped.
"""The arithmetic of an adapted linear layer on a CPU, in as few passes over memory as it needs.

PEFT computes `W x + s B A x` as five operations, with the input cast to float32 and the sum made in a new tensor:
on a CPU a small model spends more time moving those tensors than multiplying. Here the same is one autograd
function: two products and one accumulating product forward, the same backward. The adapter stays float32 (its
optimiser needs that); its products are made in the type of the activations, as automatic mixed precision does on a
GPU.

A 4-bit base is dequantised once where memory allows: the frozen weights are the same numbers on every step, so the
student that is trained is the same, at the speed of a bfloat16 base.
"""

from __future__ import annotations

import types
from typing import Any, cast

__all__ = ["fuse_adapters", "restore_adapters"]


def fuse_adapters(model: Any, *, dequantise_bytes: int = 0) -> int:
    """Replace the forward of every plain LoRA layer of `model`; returns how many were.

    Layers with dropout, DoRA or several adapters keep PEFT's own.

    Args:
        dequantise_bytes: 4-bit weights are dequantised once as long as they take no more than this.
    """
    import torch
    from peft.tuners.lora import LoraLayer

    try:
        from bitsandbytes.functional import dequantize_4bit
        from bitsandbytes.nn.modules import Linear4bit
    except ImportError:
        Linear4bit, dequantize_4bit = (), None

    fused = 0
    left = dequantise_bytes
    for module in list[Any](model.modules()):
        if not isinstance(module, LoraLayer) or not _plain(module):
            continue
        module = cast("Any", module)
        base: Any = module.get_base_layer()
        if isinstance(base, Linear4bit):
            weight: Any = base.weight
            rows, columns = weight.quant_state.shape
            kind = base.compute_dtype or torch.bfloat16
            size = rows * columns * kind.itemsize

            def dequantise(weight=weight, kind=kind):
                return cast("Any", dequantize_4bit)(weight.data, weight.quant_state).to(kind)

            if size <= left:
                left -= size
                kept = dequantise()
                module.forward = types.MethodType(_forward(lambda kept=kept: kept), module)
            else:
                module.forward = types.MethodType(_forward(dequantise), module)
        elif type(base) is torch.nn.Linear:
            module.forward = types.MethodType(_forward(lambda base=base: base.weight), module)
        else:
            continue
        fused += 1
    return fused


def restore_adapters(model: Any) -> None:
    """Give every layer PEFT's own forward back."""
    from peft.tuners.lora import LoraLayer

    for module in model.modules():
        if isinstance(module, LoraLayer):
            vars(cast("Any", module)).pop("forward", None)


def _plain(module: Any) -> bool:
    active = list(module.active_adapters)
    if len(active) != 1 or active[0] not in module.lora_A or module.lora_variant.get(active[0]) is not None:
        return False
    dropout = module.lora_dropout[active[0]]
    return not getattr(dropout, "p", 0.0) and module.lora_B[active[0]].bias is None


def _product(x, w, bias, a, b, scale):
    """(output, the input of B, A and B in the type of x); the input seen as a matrix."""
    import torch

    flat = x.reshape(-1, x.size(-1))
    a_, b_ = a.to(x.dtype), b.to(x.dtype)
    out = flat @ w.t() if bias is None else torch.addmm(bias.to(x.dtype), flat, w.t())
    low = flat @ a_.t()
    out.addmm_(low, b_.t(), alpha=scale)
    return out.view(*x.shape[:-1], out.size(-1)), low, a_, b_


def _forward(weight):
    import torch

    def forward(self, x, *args, **kwargs):
        if self.disable_adapters or self.merged:
            return type(self).forward(self, x, *args, **kwargs)
        name = self.active_adapters[0]
        bias, scale = self.get_base_layer().bias, self.scaling[name]
        a, b = self.lora_A[name].weight, self.lora_B[name].weight
        if not torch.is_grad_enabled():
            return _product(x, weight(), bias, a, b, scale)[0]
        return _function().apply(x, weight, bias, a, b, scale)

    return forward


_made: list[Any] = []


def _function() -> Any:
    """The autograd function, made on first use: this module is importable without torch."""
    if _made:
        return _made[0]
    import torch

    class AdaptedLinear(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x, weight, bias, a, b, scale):
            out, low, a_, b_ = _product(x, weight(), bias, a, b, scale)
            ctx.save_for_backward(x, low, a_, b_)
            ctx.weight, ctx.scale, ctx.kind = weight, scale, a.dtype
            return out

        @staticmethod
        def backward(ctx, grad):  # pyright: ignore[reportIncompatibleMethodOverride]
            x, low, a_, b_ = ctx.saved_tensors
            flat = x.reshape(-1, x.size(-1))
            grad = grad.reshape(-1, grad.size(-1))
            grad_low = (grad @ b_).mul_(ctx.scale)
            grad_x = None
            if ctx.needs_input_grad[0]:
                grad_x = grad @ ctx.weight()
                grad_x.addmm_(grad_low, a_)
                grad_x = grad_x.view(x.shape)
            grad_a = (grad_low.t() @ flat).to(ctx.kind) if ctx.needs_input_grad[3] else None
            grad_b = (grad.t() @ low).to(ctx.kind).mul_(ctx.scale) if ctx.needs_input_grad[4] else None
            return grad_x, None, None, grad_a, grad_b, None

    _made.append(AdaptedLinear)
    return AdaptedLinear
