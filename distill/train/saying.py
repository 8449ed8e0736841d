# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# torch and transformers are only partly typed.
"""A loaded student answers prompts, and what it said is read: for the task metric of a training, and for its proof."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from distill.teachers.reading import split_thinking

__all__ = ["Said", "read", "say"]


@dataclass(frozen=True, slots=True)
class Said:
    """One answer."""

    text: str
    """Without what was thought before it, as of a teacher's answer. Empty where the thoughts never end."""
    reasoning: str
    tokens: int
    """All that were made, the one that ends the answer among them."""
    ended: bool
    """False: cut at the limit."""


def say(
    model: Any,
    prompts: Sequence[Sequence[int]],
    stops: Sequence[int],
    *,
    max_tokens: int,
    temperature: float = 0.0,
    top_p: float = 0.95,
) -> list[list[int]]:
    """The ids that `model` writes behind each prompt, in one batch, padded on the left.

    Args:
        temperature: above 0, answers are drawn, from the likeliest tokens that make up `top_p`.
    """
    import torch

    longest = max(map(len, prompts))
    pad = stops[0]  # masked: never seen
    ids = torch.tensor([[pad] * (longest - len(prompt)) + list(prompt) for prompt in prompts])
    mask = torch.tensor([[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts])
    made = model.generate(
        input_ids=ids.to(model.device),
        attention_mask=mask.to(model.device),
        max_new_tokens=max_tokens,
        do_sample=temperature > 0,
        temperature=temperature or None,
        top_p=top_p if temperature else None,
        top_k=0 if temperature else None,
        use_cache=True,  # a training turns it off
        eos_token_id=list(stops),
        pad_token_id=pad,
    )
    return made[:, longest:].tolist()


def read(ids: Sequence[int], tokenizer: Any, stops: Sequence[int]) -> Said:
    """What `ids` say up to the first of `stops`."""
    end = next((position for position, token in enumerate(ids) if token in stops), None)
    kept = list(ids) if end is None else list(ids[:end])
    said = str(tokenizer.decode(kept, skip_special_tokens=True, clean_up_tokenization_spaces=False))
    text, thoughts, _ = split_thinking(said)
    return Said(text, thoughts.strip("\n"), len(kept) + (end is not None), end is not None)
