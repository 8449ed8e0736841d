"""A chat template in the language of Ollama's Modelfile.

Ollama does not run Jinja: it has Go templates over the same turns. The translation needs no knowledge of either
language. The Jinja template is rendered with marked contents; what stands around the marks is the text that opens and
closes a turn of each role. It is accepted only when these pieces, put together as Ollama would, give the very prompt
that the Jinja template gives, for conversations with and without instructions and of several turns.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from distill.errors import InputError
from distill.train.template import Encoder

__all__ = ["Pieces", "read_pieces"]

_MARK = {"system": "\u27e6SYSTEM\u27e7", "user": "\u27e6USER\u27e7", "assistant": "\u27e6ASSISTANT\u27e7"}


@dataclass(frozen=True, slots=True)
class Pieces:
    """The text around the content of a turn, by role; what stands before everything; what opens the answer."""

    head: str
    lead: str
    """Instructions that the template gives by itself, where a conversation has none."""
    around: dict[str, tuple[str, str]]
    answer: str

    def prompt(self, turns: Sequence[dict[str, str]]) -> str:
        """What Ollama would build."""
        parts = [self.head, "" if turns[0]["role"] == "system" else self.lead]
        for turn in turns:
            before, after = self.around[turn["role"]]
            parts += [before, turn["content"], after]
        return "".join([*parts, self.answer])

    def go(self, *, without: str = "") -> str:
        """As a Go template; `without`: text at the very start that Ollama puts there by itself (BOS)."""
        opening = self.head.removeprefix(without)
        branches = "".join(
            f"{{{{- {'if' if role == 'system' else 'else if'} eq .Role {_text(role)} }}}}{{{{ {_text(before)} }}}}"
            f"{{{{ .Content }}}}{{{{ {_text(after)} }}}}\n"
            for role, (before, after) in self.around.items()
        )
        lead = ""
        if self.lead:
            lead = f'{{{{- if ne (index .Messages 0).Role "system" }}}}{{{{ {_text(self.lead)} }}}}{{{{ end }}}}\n'
        head = f"{{{{- {_text(opening)} }}}}\n" if opening else ""
        turns = f"{{{{- range .Messages }}}}\n{branches}{{{{- end }}}}\n{{{{- end }}}}"
        return f"{head}{lead}{turns}{{{{- {_text(self.answer)} }}}}"


def read_pieces(tokenizer: Any) -> Pieces | None:
    """The template of `tokenizer` in pieces; None where it is more than text around turns."""
    try:
        pieces = _pieces(tokenizer)
        if pieces is None:
            return None
        for turns in _TRIALS:
            if pieces.prompt(turns) != _render(tokenizer, turns):
                return None
    except (InputError, KeyError, ValueError):
        return None
    return pieces


_TRIALS: tuple[list[dict[str, str]], ...] = tuple(
    [{"role": role, "content": text} for role, text in turns]
    for turns in (
        [("user", "one")],
        [("system", "be short"), ("user", "one")],
        [("user", "one"), ("assistant", "two"), ("user", "three")],
        [("system", 'a {b} "c"\nd'), ("user", "one\n\ntwo"), ("assistant", "three"), ("user", "f")],
    )
)


def _pieces(tokenizer: Any) -> Pieces | None:
    def marked(*roles: str) -> str:
        return _render(tokenizer, [{"role": role, "content": _MARK[role]} for role in roles])

    alone = marked("user")
    asked = marked("user", "assistant", "user")
    told = marked("system", "user")
    start, _, rest = asked.partition(_MARK["user"])  # head lead user-before
    middle, _, rest = rest.partition(_MARK["assistant"])  # user-after assistant-before
    again, _, end = rest.partition(_MARK["user"])  # assistant-after user-before; user-after answer
    if alone != start + _MARK["user"] + end:
        return None
    before_system, _, rest = told.partition(_MARK["system"])  # head system-before
    after_system, _, told_end = rest.partition(_MARK["user"])  # system-after user-before
    if told_end != end:
        return None
    # A turn's opening is what all places share: at the start, after an answer, after instructions.
    opening = _common_end(start, again, after_system)
    answer = _common_end(end, middle)
    if not opening or not answer:
        return None
    head = _common_start(start[: len(start) - len(opening)], before_system) if before_system else ""
    return Pieces(
        head=head,
        lead=start[len(head) : len(start) - len(opening)],
        around={
            "system": (before_system[len(head) :], after_system[: len(after_system) - len(opening)]),
            "user": (opening, end[: len(end) - len(answer)]),
            "assistant": (middle[len(end) - len(answer) :], again[: len(again) - len(opening)]),
        },
        answer=answer,
    )


def _common_end(*texts: str) -> str:
    return _common_start(*(text[::-1] for text in texts))[::-1]


def _common_start(*texts: str) -> str:
    shortest = min(texts, key=len)
    for position, character in enumerate(shortest):
        if any(text[position] != character for text in texts):
            return shortest[:position]
    return shortest


def _render(tokenizer: Any, turns: Sequence[dict[str, str]]) -> str:
    encoder = Encoder(tokenizer)
    ids = encoder.prompt(turns)
    return str(tokenizer.decode(ids, clean_up_tokenization_spaces=False))


def _text(value: str) -> str:
    """A Go string literal."""
    for plain, escaped in (("\\", "\\\\"), ('"', '\\"'), ("\n", "\\n"), ("\t", "\\t"), ("\r", "\\r")):
        value = value.replace(plain, escaped)
    return f'"{value}"'
