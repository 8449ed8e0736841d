"""Whether a question fits the model's context window, before it is sent.

What surely does not fit is a fate at once, with its numbers and without its price; what may fit, the provider judges,
and its refusal has the same class. So the estimate errs low: four and a half characters of ASCII make a token, or three
others, where English prose has four to five and code, numbers and most scripts have fewer.
"""

from __future__ import annotations

from dataclasses import dataclass

from distill.errors import FailureClass, TeacherError
from distill.gateway.money import listed
from distill.recipe import TeacherConfig
from distill.teachers import Request

__all__ = ["Window", "window_for"]

_ASCII_PER_TOKEN = 4.5
_OTHERS_PER_TOKEN = 3.0


@dataclass(frozen=True, slots=True)
class Window:
    """The context window of one teacher's model."""

    tokens: int
    model: str
    source: str
    """Where the figure comes from: `context_tokens`, or the price list."""

    def problem(self, request: Request, size: int) -> TeacherError | None:
        """Why the question does not fit, or None; `size` is the bytes of its wire payload."""
        made = request.params.max_tokens
        if size / _ASCII_PER_TOKEN + made <= self.tokens:  # no text of so many bytes makes more
            return None
        given = estimated_tokens(request)
        if given + made <= self.tokens:
            return None
        return TeacherError(
            FailureClass.CONTEXT,
            f"the prompt (about {given:,} tokens) and max_tokens ({made:,}) do not fit the context window of"
            f" {self.model} ({self.tokens:,} tokens by {self.source})",
        )


def estimated_tokens(request: Request) -> int:
    """Tokens of a prompt, at least."""
    characters = others = 0
    for message in request.messages:
        text = message.content
        characters += len(text)
        if not text.isascii():
            others += len(text) - len(text.encode("ascii", "ignore"))
    return int((characters - others) / _ASCII_PER_TOKEN + others / _OTHERS_PER_TOKEN)


def window_for(config: TeacherConfig) -> Window | None:
    """The window of a teacher's model, where it is known. An embedded engine counts exactly, and refuses by itself."""
    if config.provider == "local":
        return None
    if config.context_tokens is not None:
        return Window(config.context_tokens, config.model, "context_tokens")
    if config.provider == "simulated":
        return None
    model = listed(config)
    window = model.context_window if model is not None else None
    return None if window is None else Window(window, config.model, "the price list")
