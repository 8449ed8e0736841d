# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# torch and peft are only partly typed.
"""How far two forms of the same student are apart, token by token.

Both are shown the same conversations, the answers included, and compared at the positions of the answer's tokens:
the Kullback-Leibler divergence of the second form's next-token distribution from the first's, and how often both put
the same token first. Teacher forcing keeps one early difference from hiding everything after it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distill.train.data import Conversation
from distill.train.student import load_adapter, load_model
from distill.train.template import IGNORE, Encoded, Encoder

__all__ = ["PROBES", "Distributions", "Parity", "adapted", "compare", "distributions", "probes"]

_MOST_TOKENS = 1024
"""Positions that are compared: their distributions over the vocabulary are held in memory."""

_TALK = (
    ("What is the capital of France?", "The capital of France is Paris."),
    ("Write one short sentence about rain.", "The rain fell softly on the quiet street all afternoon."),
    ("Return a JSON object with the keys a and b.", '{"a": 1, "b": "two"}'),
    ("How many days has a week?", "A week has seven days."),
    ("Translate to German: good morning", "Guten Morgen"),
    ("My order 4711 has not arrived. What can I do?", "I am sorry. Please send me your e-mail address, I will look."),
)
PROBES = tuple(
    Conversation(({"role": "user", "content": asked}, {"role": "assistant", "content": answered}), f"probe {number}")
    for number, (asked, answered) in enumerate(_TALK, 1)
)
"""Used where no rows of the task are given."""


@dataclass(frozen=True, slots=True)
class Parity:
    """One form against another."""

    kl: float
    """Mean divergence, in nats a token."""
    kl_max: float
    """The largest of any token."""
    top1: float
    """Share of tokens where both put the same token first."""
    tokens: int


@dataclass(frozen=True)
class Distributions:
    """Log-probabilities [tokens, vocabulary] at the answers' positions, in float32."""

    values: Any


def probes(rows: Sequence[Conversation], tokenizer: Any) -> list[Encoded]:
    """The rows as token ids, up to the number of answer tokens that is compared."""
    encoder = Encoder(tokenizer)
    chosen: list[Encoded] = []
    left = _MOST_TOKENS
    for row in rows:
        for example in encoder(row):
            chosen.append(example)
            left -= example.trained
        if left <= 0:
            break
    return chosen


def distributions(model: Any, examples: Sequence[Encoded]) -> Distributions:
    """What `model` gives at every answer token of `examples`."""
    import torch

    parts: list[Any] = []
    with torch.inference_mode():
        for example in examples:
            ids = torch.tensor([example.input_ids], device=model.device)
            logits = model(input_ids=ids, use_cache=False).logits[0]
            wanted = [position - 1 for position, label in enumerate(example.labels) if label != IGNORE]
            parts.append(torch.log_softmax(logits[wanted].float(), -1).cpu())
    return Distributions(torch.cat(parts)[:_MOST_TOKENS])


def compare(reference: Distributions, other: Distributions) -> Parity:
    """How far `other` is from `reference`; both of the same examples."""
    ours, theirs = reference.values, other.values
    kl = (ours.exp() * (ours - theirs)).sum(-1).clamp(min=0)
    top1 = (ours.argmax(-1) == theirs.argmax(-1)).float().mean()
    return Parity(float(kl.mean()), float(kl.max()), float(top1), len(kl))


def adapted(base: Path, adapter: Path, *, dtype: str, four_bit: bool) -> Any:
    """The student as it was trained: its base, held as in training, and the adapter beside it."""
    import torch

    from distill.io.memory import available_memory
    from distill.train.kernels import fuse_adapters

    model = load_model(base, dtype=dtype, four_bit=four_bit)
    model = load_adapter(model, adapter).eval()
    if not torch.cuda.is_available():
        # As the evaluation runs it; a 4-bit base is dequantised once instead of once a probe.
        fuse_adapters(model, dequantise_bytes=available_memory() // 4)
    return model
