"""Two ways of making texts comparable, and short excerpts of them for people.

`fold` is for near-duplicates: case and spacing go, everything else stays. `plain` is for equality: the punctuation
of sentences and quotes go too. What carries meaning stays: operators, brackets, signs, and points inside numbers,
so that `3 - 5` is not `3 + 5`, and `1.5` is not `15`.
"""

from __future__ import annotations

import re
import unicodedata

__all__ = ["excerpt", "fold", "plain"]

_APOSTROPHES = "'’ʼ`´"
# Stops, commas and brackets of Chinese, Japanese, Arabic and Indian scripts; those NFKC knows are ASCII by now.
_FOREIGN = "。、「」『』《》【】〈〉؟،؛۔।॥・"
# One class of characters finds the places; what stands beside them decides. Alternatives with look-behinds in one
# expression are tried at every character, which is ten times slower.
_MARK = re.compile(rf"""["'“”„«»‘’ʼ`´¿¡…–—{_FOREIGN};?!.,:-]""")


def fold(text: str) -> str:
    """NFKC, case-folded, single spaces."""
    if not text.isascii():
        text = unicodedata.normalize("NFKC", text)
    return " ".join(text.casefold().split())


def plain(text: str) -> str:
    """As `fold`, without the punctuation of sentences. A text of nothing but punctuation stays as it is."""
    folded = fold(text)
    return " ".join(_MARK.sub(_mark, folded).split()) or folded


def _mark(match: re.Match[str]) -> str:
    mark, text, place = match.group(), match.string, match.start()
    before, after = text[place - 1 : place], text[place + 1 : place + 2]
    if mark in _APOSTROPHES:
        return "" if before.isalnum() and after.isalnum() else " "
    if mark in ".,:":
        return mark if after.isdigit() else " "  # the point of 1.5, the comma of 1,000, the colon of 10:30
    if mark == "-":
        return " " if before.isalpha() and after.isalpha() else mark  # the hyphen of well-known, not a minus
    return mark if mark == "!" and after == "=" else " "


def excerpt(text: str, limit: int = 160) -> str:
    """One line of at most `limit` characters."""
    line = " ".join(text[: 4 * limit].split())
    return line if len(line) <= limit and len(text) <= 4 * limit else line[: limit - 1].rstrip() + "…"
