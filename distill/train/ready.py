# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# torch, transformers and peft are only partly typed.
"""A built model is made ready for its steps: the types of its weights, and the fastest arithmetic it allows."""

from __future__ import annotations

from typing import Any

from distill.recipe import TrainConfig

__all__ = ["attention_of", "choose_attention", "device", "make_ready", "restore"]

_ATTENTION_BYTES = 512 << 20


def make_ready(model: Any, config: TrainConfig) -> int:
    """Adapter weights in float32, and their layers fused where that pays; returns how many were."""
    import torch

    from distill.io.memory import available_memory
    from distill.train.kernels import fuse_adapters

    if config.adapter == "full":
        return 0
    for parameter in model.parameters():
        if parameter.requires_grad:
            # TRL casts the adapter of a 4-bit base to bfloat16, where an update of 1e-4 on a weight of 0.05 is lost.
            parameter.data = parameter.data.float()
    if torch.cuda.is_available() or config.gradient_checkpointing:
        return 0
    return fuse_adapters(model, dequantise_bytes=available_memory() // 4)


def choose_attention(model: Any, config: TrainConfig, longest: int, *, sides: int = 1) -> str:
    """Set the attention that `attention_of` names; returns its name."""
    causal = model.get_base_model() if hasattr(model, "get_base_model") else model
    name = attention_of(config, causal.config.get_text_config(), longest, sides=sides)
    if name != "sdpa":
        causal.set_attn_implementation(name)
    return name


def attention_of(config: TrainConfig, text: Any, longest: int, *, sides: int = 1) -> str:
    """Plain matrix products for short rows on a CPU: SDPA's backward pass there takes several times as long.

    The price is the attention weights of every layer, kept for the backward pass; past 512 MB SDPA stays. On a GPU rows
    are packed for flash attention where it is installed: it skips what other rows hold.

    Args:
        text: the language model's configuration.
        sides: sequences that one row of a batch makes (2 for pairs).
    """
    import torch

    if torch.cuda.is_available():
        return "flash_attention_2" if config.packing == "bfd" and _has_flash() else "sdpa"
    if config.gradient_checkpointing:
        return "sdpa"
    rows = sides * config.rows_at_once
    if config.packing == "bfd":
        longest = min(config.max_length, longest * config.batch_size)
    kept = 8 * rows * text.num_attention_heads * longest**2 * text.num_hidden_layers
    return "eager" if kept <= _ATTENTION_BYTES else "sdpa"


def restore(model: Any) -> None:
    """Undo `make_ready` as far as saving needs it."""
    from distill.train.kernels import restore_adapters

    if hasattr(model, "peft_config"):
        restore_adapters(model)


def device() -> str:
    """What was trained on, in words."""
    import torch

    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    return f"cpu, {torch.get_num_threads()} threads"


def _has_flash() -> bool:
    from transformers.utils.import_utils import is_flash_attn_2_available

    return bool(is_flash_attn_2_available())
