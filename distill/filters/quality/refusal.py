"""Rows in which the model declines, or speaks of itself as a model.

Only the answer counts, and only a first person who declines a request. A customer who writes "I can't access my
account" does not refuse, nor does an agent who writes "I'm sorry to hear that" or "I can't find your order": so
a "can't" must be followed by what assistants decline to do, and must stand at the start of the answer.
"""

from __future__ import annotations

import re

import pyarrow as pa

from distill.filters.base import Verdicts
from distill.filters.normalise import excerpt
from distill.filters.text import Absent, texts
from distill.recipe import RefusalStep

__all__ = ["RefusalFilter", "find_refusal"]

_HEAD = 300  # characters of an answer in which a refusal begins

_LEAD = (
    r"(?:(?:i'm|i am|we're) (?:really |very |so )?(?:sorry|afraid)|sorry|(?:my )?apologies|i apologi[sz]e"
    r"|unfortunately|regrettably|thank you for[^.!?]{0,80}|i (?:understand|appreciate)[^.!?]{0,120})"
)
_CANNOT = (
    r"(?:can ?not|can't|cant|won't|will not|(?:am|'m) (?:not able|unable) to|am not allowed to"
    r"|'m not allowed to|(?:must|have to) (?:respectfully )?decline(?: to)?|won't be able to|do not feel comfortable"
    r"|don't feel comfortable|(?:am|'m) not (?:going|comfortable) (?:to )?)"
)
_DECLINED = (
    r"(?:help|assist|comply|fulfil+|provide|create|generate|write|produce|compose|answer|respond|engage|participate"
    r"|discuss|share|support|continue|offer|do (?:that|this)|give|complete|process|accommodate|role ?-?play|pretend"
    r"|creating|generating|writing|providing|answering|discussing|helping|assisting|sharing)"
)
_PATTERNS = {
    "declines": re.compile(
        rf"^\W*(?:{_LEAD}[\s,.;:!—–-]*(?:but|however|that)?[\s,]*)?(?:as an? [^,.]{{0,60}},\s*)?"
        rf"i ?{_CANNOT} ?(?:\w+ly |to |be |able to ){{0,3}}{_DECLINED}\b"
    ),
    "declines_other_language": re.compile(
        r"^\W*(?:lo siento,? (?:pero )?no puedo|je suis désolée?,? (?:mais )?je ne peux pas"
        r"|no puedo (?:ayudar|cumplir|proporcionar|responder)|je ne peux pas (?:vous |t')?(?:aider|répondre|fournir)"
        r"|es tut mir leid,? (?:aber )?(?:ich kann|dabei kann ich)"
        r"|(?:leider )?(?:ich kann|kann ich) (?:dir |ihnen )?(?:dabei |damit )?(?:leider )?nicht (?:weiter)?helfen"
        r"|desculpe,? (?:mas )?não posso|mi dispiace,? (?:ma )?non posso"
        r"|(?:извините|простите|к сожалению),? (?:но )?я не могу (?:с этим )?"
        r"(?:помо|ответить|выполнить|предоставить|написать|создать|обсуждать)"
        r"|(?:(?:很|非常)?抱歉|对不起)[,，]?我(?:无法|不能)(?:提供|回答|帮助|协助|满足|完成|生成)"
        r"|申し訳(?:ございません|ありません)が|죄송(?:하지만|합니다만|합니다)[^.!?]{0,60}수 없습니다)"
    ),
    "speaks_as_model": re.compile(
        r"\b(?:as an? (?:ai|artificial intelligence)(?: (?:language )?(?:model|assistant))?,? i\b"
        r"|as an? (?:large )?language model,? i\b"
        r"|i(?:'m| am) (?:just|only|merely) an ai(?=[,.;!?]| and\b| so\b|$)"
        r"|i(?:'m| am) (?:just |only |merely )?an? (?:ai|artificial intelligence|large language|language)"
        r"(?: language)? (?:model|assistant)\b)"
    ),
}
_CURLY = str.maketrans({"’": "'", "‘": "'", "ʼ": "'", "`": "'"})


class RefusalFilter:
    """Drops a row whose answer declines (`declines`, `declines_other_language`), speaks of itself as a model
    (`speaks_as_model`) or holds one of the step's own phrases (`phrase`). Evidence is the matching text."""

    def __init__(self, step: RefusalStep, name: str = "refusal") -> None:
        self.name = name
        self._optional = not step.fields
        self._fields = step.fields or ("response",)
        self._phrases = tuple(phrase.translate(_CURLY).casefold() for phrase in step.patterns)

    def judge(self, rows: pa.Table) -> Verdicts:
        verdicts = Verdicts.kept(rows.num_rows)
        try:
            contents = texts(rows, self._fields)
        except Absent:
            if not self._optional:
                raise
            return verdicts  # rows without answers refuse nothing
        for row, content in enumerate(contents):
            found = self._find(content)
            if found is not None:
                verdicts.drop(row, *found)
        return verdicts

    def _find(self, content: str) -> tuple[str, str] | None:
        found = find_refusal(content)
        if found is not None:
            return found
        if self._phrases:
            whole = content.translate(_CURLY).casefold()
            phrase = next((phrase for phrase in self._phrases if phrase in whole), None)
            if phrase is not None:
                return "phrase", excerpt(phrase)
        return None


def find_refusal(content: str) -> tuple[str, str] | None:
    """Which pattern says that `content` declines, and the matching text; None where none does."""
    head = " ".join(content[: 4 * _HEAD].translate(_CURLY).casefold().split())[:_HEAD]
    for reason, pattern in _PATTERNS.items():
        match = pattern.search(head)
        if match is not None:
            return reason, excerpt(match.group().strip())
    return None
