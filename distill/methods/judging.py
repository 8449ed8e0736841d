"""Judges: which of two answers is better, or how good one is; read robustly.

A judge is asked for JSON. Judges that answer in prose are read all the same, as long as the prose says it in one of
the known forms (`[[A]]` is MT-Bench's, Zheng et al. 2023, arXiv:2306.05685) and says it once.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any, Literal, cast

from distill.methods.asking import Lost, Read, Voice, draw_read, turns
from distill.methods.base import Ask, Prompt
from distill.methods.structured import Structure, Unstructured
from distill.planning import Slot

__all__ = ["SCORE_SCHEMA", "WINNER_SCHEMA", "Judge", "Winner", "read_score", "read_winner"]

Winner = Literal["A", "B", "tie"]

WINNER_SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"winner": {"type": "string", "enum": ["A", "B", "tie"]}},
    "required": ["winner"],
    "additionalProperties": False,
}


def _score_schema(top: int) -> dict[str, Any]:
    return {
        "type": "object",
        # An enumeration, because strict modes of some providers do not know `minimum` and `maximum`.
        "properties": {"score": {"type": "integer", "enum": list(range(1, top + 1))}},
        "required": ["score"],
        "additionalProperties": False,
    }


SCORE_SCHEMA = _score_schema(10)


class Judge:
    """A judge prompt put to a judge teacher. A schema of the prompt file (room to think first, for instance) goes
    before the built-in one; it has to hold `winner` or `score`."""

    def __init__(self, prompt: Prompt, voice: Voice) -> None:
        self._prompt = prompt
        self._voice = voice

    async def winner(self, ask: Ask, slot: Slot, question: str, a: str, b: str, **more: str) -> Read[Winner] | Lost:
        """A against B, in this order. `more` are further variables of the prompt."""
        extra = {"question": question, "a": a, "b": b, **more}
        messages = turns(self._prompt.render(slot, **extra), self._prompt.render_system(slot, **extra))
        return await draw_read(ask, self._voice, messages, read_winner, schema=self._prompt.schema or WINNER_SCHEMA)

    async def score(
        self, ask: Ask, slot: Slot, question: str, answer: str, *, top: int = 10, **more: str
    ) -> Read[float] | Lost:
        """From 1 to `top`. `more` are further variables of the prompt."""
        extra = {"question": question, "answer": answer, **more}
        messages = turns(self._prompt.render(slot, **extra), self._prompt.render_system(slot, **extra))
        schema = self._prompt.schema or (SCORE_SCHEMA if top == 10 else _score_schema(top))
        return await draw_read(ask, self._voice, messages, lambda text: read_score(text, top), schema=schema)


_ANY = Structure()
_WINNER_FORMS = (
    re.compile(r"\[\[\s*(a|b|tie|c)\s*\]\]", re.IGNORECASE),
    re.compile(r"\b(?:winner|verdict|choice|preferred)\b\W{0,6}(?:is\W+)?(?:answer\W+)?(a|b|tie)\b", re.IGNORECASE),
    re.compile(r"\banswer\W{1,3}([AB])\W+(?:is|was)\W+(?:\w+\W+)?(?:better|best|preferred)\b", re.IGNORECASE),
)
_ALONE = re.compile(r"\W*(?:answer\s+)?(a|b|tie)\W*", re.IGNORECASE)


def read_winner(text: str) -> Winner:
    """The verdict in a judge's answer.

    Raises:
        Unstructured: there is none, or there are several that differ.
    """
    said = _member(text, "winner")
    found: set[Winner | None] = (
        {_winner(said)} if isinstance(said, str) else _said(text, _WINNER_FORMS, _ALONE, _winner)
    )
    if len(found) == 1 and (winner := found.pop()) is not None:
        return winner
    raise Unstructured('a JSON object such as {"winner": "A"} was expected, with "A", "B" or "tie"')


def read_score(text: str, top: int = 10) -> float:
    """The score in a judge's answer, from 1 to `top`.

    Raises:
        Unstructured: there is none, there are several that differ, or it is out of range.
    """

    forms, alone = _score_forms(top)

    def in_range(said: str) -> float | None:
        score = float(said)
        return score if 1 <= score <= top else None

    said = _member(text, "score")
    if isinstance(said, (int, float)) and not isinstance(said, bool):
        found: set[float | None] = {in_range(str(said))}
    elif isinstance(said, str):
        whole = alone.fullmatch(said)
        found = {in_range(whole.group(1)) if whole else None}
    else:
        found = _said(text, forms, alone, in_range)
    if len(found) == 1 and (score := found.pop()) is not None:
        return score
    example = 7 if top == 10 else top - 1
    wanted = f'a JSON object such as {{"score": {example}}}'
    raise Unstructured(f"{wanted} was expected, with a whole number from 1 to {top}")


def _member(text: str, name: str) -> Any:
    try:
        value = _ANY.parse(text).value
    except Unstructured:
        return None
    if not isinstance(value, dict):
        return None
    members = {key.lower(): member for key, member in cast("dict[str, Any]", value).items()}
    return members.get(name)


def _said(text: str, forms: tuple[re.Pattern[str], ...], alone: re.Pattern[str], read: Any) -> set[Any]:
    """What the first form that occurs says; the text alone where none does."""
    for form in forms:
        found = {read(match.group(1)) for match in form.finditer(text)}
        if found:
            return found
    whole = alone.fullmatch(text)
    return {read(whole.group(1))} if whole else set()


def _winner(said: str) -> Winner | None:
    match = _ALONE.fullmatch(said)
    name = match.group(1).lower() if match else said.strip().lower()
    names: dict[str, Winner] = {"a": "A", "b": "B", "tie": "tie", "c": "tie"}
    return names.get(name)


@lru_cache(maxsize=4)
def _score_forms(top: int) -> tuple[tuple[re.Pattern[str], ...], re.Pattern[str]]:
    """Forms of a score in prose, and of a text that is nothing but a score."""
    forms = (
        re.compile(r"\[\[\s*(\d+(?:\.\d+)?)\s*\]\]"),
        re.compile(r"\b(?:score|rating|grade)\b\W{0,6}(?:is\W+|of\W+)?(\d+(?:\.\d+)?)\b", re.IGNORECASE),
        re.compile(rf"\b(\d+(?:\.\d+)?)\s*(?:/|out of)\s*{top}\b", re.IGNORECASE),
    )
    return forms, re.compile(rf"\W*(\d+(?:\.\d+)?)(?:\s*(?:/|out of)\s*{top})?\W*", re.IGNORECASE)
