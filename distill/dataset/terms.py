"""What providers' terms say about training on their models' outputs, as far as it is known here.

A reminder, not legal advice: terms change, differ by plan and country, and only the current text counts.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

__all__ = ["CHECKED", "TERMS", "Terms", "terms_of"]

CHECKED = "2026-11-22"
"""The day this table was last looked over."""


@dataclass(frozen=True, slots=True)
class Terms:
    name: str
    model: str
    """Regular expression over the model's name, any case."""
    provider: str | None
    """Only for this provider of the recipe; None: for every one (open weights are served by many)."""
    says: str


TERMS = (
    Terms("DeepSeek", r"deepseek", None,
          "R1 and newer weights: MIT licence, which allows training other models on outputs. Earlier weights have a "
          "licence of their own. The API has its own terms."),
    Terms("Meta Llama", r"llama", None,
          "Llama 3.1 and newer: outputs may train other models; one that is distributed must have a name that begins "
          "with “Llama”, and the licence goes with it. Llama 2 and 3 did not allow improving other models."),
    Terms("Qwen", r"qwen|qwq", None,
          "Most sizes: Apache-2.0, no limits on outputs. Some sizes (Qwen2.5 3B and 72B among them) have a research "
          "or a Qwen licence."),
    Terms("Google Gemma", r"gemma", None,
          "Gemma terms: a model trained on outputs to perform like Gemma counts as a derivative, and their use "
          "restrictions go with it."),
    Terms("Mistral", r"mistral|mixtral|codestral|ministral|magistral|pixtral|devstral", None,
          "Depends on the model: many weights are Apache-2.0, others have a research or commercial licence. The API "
          "has its own terms."),
    Terms("SmolLM", r"smollm", None, "Apache-2.0, no limits on outputs."),
    Terms("OpenAI open weights", r"gpt-oss", None, "Apache-2.0, no limits on outputs."),
    Terms("OpenAI", r"^(openai/)?(gpt-|chatgpt|o\d)", None,
          "You own the output; it may not be used to develop models that compete with OpenAI."),
    Terms("Anthropic", r"claude", None,
          "You own the output; it may not be used to train models that compete with Anthropic without its consent."),
    Terms("Anthropic", r".", "anthropic",
          "You own the output; it may not be used to train models that compete with Anthropic without its consent."),
    Terms("Google Gemini", r"gemini", None,
          "The service may not be used to develop models that compete with it."),
)  # fmt: skip
"""The first line that fits a teacher counts."""


def terms_of(provider: str, model: str) -> Terms | None:
    """The line for a teacher, or None when the table has none."""
    if provider == "simulated":
        return None
    for terms in TERMS:
        if terms.provider in (None, provider) and re.search(terms.model, model, re.IGNORECASE):
            return terms
    return None
