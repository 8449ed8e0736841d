"""Copies of eval items, edited as data gets edited on its way: what a self-test hides among clean rows.

Every edit is made by rule and from a seed. The rewording is milder than a language model's: what it shows is a bound
from above.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence

__all__ = ["CLASSES", "plant"]

_SENTENCE = re.compile(r"(?<=[.!?])\s+")
_NUMBER = re.compile(r"\d+(?:,\d{3})*(?:\.\d+)?")
_WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)*")
_SPELLED = (
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
)  # fmt: skip
_OTHER_WORDS = {
    "buys": "purchases", "bought": "purchased", "gets": "receives", "got": "received", "gives": "hands",
    "gave": "handed", "makes": "produces", "made": "produced", "eats": "consumes", "ate": "consumed",
    "sells": "trades", "sold": "traded", "starts": "begins", "started": "began", "needs": "requires",
    "needed": "required", "wants": "wishes", "has": "owns", "had": "owned", "uses": "employs", "used": "employed",
    "takes": "requires", "goes": "travels", "went": "travelled", "finds": "discovers", "found": "discovered",
    "shows": "indicates", "helps": "assists", "asks": "inquires", "says": "states", "total": "overall",
    "big": "large", "small": "little", "many": "numerous", "each": "every", "every": "each", "day": "date",
    "week": "seven day period", "kids": "children", "children": "kids", "friends": "companions", "house": "home",
    "home": "house", "money": "cash", "cost": "price", "costs": "amounts to", "price": "cost", "job": "work",
    "work": "labour", "car": "vehicle", "store": "shop", "shop": "store", "food": "meals", "hours": "hrs",
    "minutes": "mins", "remaining": "left", "left": "remaining", "also": "additionally", "then": "afterwards",
    "but": "however", "if": "supposing", "how": "exactly how", "what": "precisely what", "which": "what",
    "because": "since", "about": "roughly", "only": "just", "most": "majority", "more": "additional",
    "same": "identical", "different": "distinct", "new": "fresh", "old": "aged", "first": "initial", "last": "final",
    "after": "following", "before": "prior to", "best": "finest", "following": "below", "correct": "right",
    "wrong": "incorrect", "example": "instance", "describe": "explain", "explain": "describe", "write": "compose",
    "list": "enumerate", "return": "give back", "given": "provided", "number": "figure", "numbers": "figures",
    "value": "quantity", "function": "routine", "string": "text", "people": "persons", "person": "individual",
    "term": "expression", "refers": "points", "theory": "account", "society": "community", "often": "frequently",
    "may": "might", "can": "is able to", "should": "ought to", "must": "has to",
}  # fmt: skip


def _exact(text: str, source: random.Random, words: Sequence[str]) -> str | None:
    return text


def _edited(share: float) -> Callable[[str, random.Random, Sequence[str]], str | None]:
    def edit(text: str, source: random.Random, words: Sequence[str]) -> str | None:
        parts = text.split()
        count = max(1, round(share * len(parts)))
        if len(parts) < 5 or count > len(parts) // 2:
            return None
        for place in source.sample(range(len(parts)), count):
            kind = source.random()
            if kind < 0.6:
                parts[place] = source.choice(words)
            elif kind < 0.8:
                parts[place] = ""
            else:
                parts[place] += " " + source.choice(words)
        return " ".join(part for part in parts if part)

    return edit


def _numbers(text: str, source: random.Random, words: Sequence[str]) -> str | None:
    """Every number another one of about its size."""

    def other(match: re.Match[str]) -> str:
        value = float(match.group().replace(",", ""))
        if not value.is_integer():
            return f"{value + source.randint(1, 9) / 2:g}"
        number = int(value)
        return str(number + source.choice([-1, 1, 2, 3]) * max(1, number // 5) if number > 3 else number + 4)

    changed = _NUMBER.sub(other, text)
    return changed if changed != text else None


def _shuffled(text: str, source: random.Random, words: Sequence[str]) -> str | None:
    sentences = _SENTENCE.split(text.strip())
    if len(sentences) < 2:
        return None
    order = list(range(len(sentences)))
    while order == sorted(order):
        source.shuffle(order)
    return " ".join(sentences[place] for place in order)


def _reworded(text: str, source: random.Random, words: Sequence[str]) -> str | None:
    """Other words where there is a common one, numbers spelled out or written in digits, sentences turned round."""

    def word(match: re.Match[str]) -> str:
        plain = match.group().lower()
        if plain in _SPELLED:
            return str(_SPELLED.index(plain))
        return _OTHER_WORDS.get(plain, match.group())

    def number(match: re.Match[str]) -> str:
        value = match.group()
        return _SPELLED[int(value)] if value.isdigit() and int(value) < len(_SPELLED) else value

    sentences = [_WORD.sub(word, _NUMBER.sub(number, sentence)) for sentence in _SENTENCE.split(text.strip())]
    changed = " ".join([*sentences[1:-1], sentences[0], *sentences[-1:]] if len(sentences) > 2 else sentences)
    return changed if changed != text else None


_PLANTS: dict[str, Callable[[str, random.Random, Sequence[str]], str | None]] = {
    "exact": _exact,
    "edited_5": _edited(0.05),
    "edited_10": _edited(0.10),
    "edited_20": _edited(0.20),
    "number_changed": _numbers,
    "shuffled": _shuffled,
    "reworded": _reworded,
}

CLASSES = (*_PLANTS, "inside_row")
"""What is planted: `edited_N` has N % of its words replaced, deleted or added; `inside_row` stands in a clean row."""


def plant(kind: str, text: str, host: str, words: Sequence[str], seed: str) -> str | None:
    """One edited copy of an item, or None where it cannot be had (no number to change, one sentence to shuffle).

    Args:
        host: the clean row that an `inside_row` copy stands in.
        words: words of the user's rows, which replace others.
    """
    source = random.Random(f"{seed}:{kind}")  # noqa: S311
    if kind == "inside_row":
        return f"{host}\n\n{text}\n\n{' '.join(source.choice(words) for _ in range(12))}"
    return _PLANTS[kind](text, source, words)
