"""The placeholders of one row: what was found in any of its texts is hidden in all of them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence

from distill.filters.privacy.detect import Detector, Finding, merge
from distill.recipe.quality import PiiKind

__all__ = ["Mask"]

_PLACEHOLDER = re.compile(r"\[([A-Z_]{2,20})_(\d{1,6})\]")
_ANNOUNCED = frozenset({"credentials", "api_key", "secret", "ssn", "national_id", "phone", "name"})
"""Kinds that may be known in one place by the words around it, and stand bare in another."""
_MOST = 1000  # values of one row that are looked for again
_SHORTEST = 4  # characters of a value, or of the rest of one in an excerpt, that could give it away
_PART = 3  # letters of a part of a name
_JSON_BEFORE, _JSON_AFTER = re.compile(r"[:,\[]\s*$"), re.compile(r"\s*[,}\]]")


class Mask:
    """Finds the values in a row's texts; then hides them."""

    def __init__(
        self, texts: Sequence[str], detector: Detector, *, people: Callable[[str], list[Finding]] | None = None
    ) -> None:
        self.found: Counter[PiiKind] = Counter()
        """Values in the texts, each place counted."""
        self.replaced: Counter[str] = Counter()
        """Values hidden so far."""
        self._detector = detector
        self._people = people
        self._spans = {text: self._find(text) for text in dict.fromkeys(texts)}
        self._raws = {text[span.start : span.end]: span for text, spans in self._spans.items() for span in spans}
        self._names: dict[tuple[PiiKind, str], str] = {}
        self._numbers: Counter[str] = Counter()
        self._again: re.Pattern[str] | None = None
        self._known: dict[str, Finding] = {}
        if not self._raws:
            return
        self._learn()
        for text in texts:
            for label, number in _PLACEHOLDER.findall(text):
                self._numbers[label] = max(self._numbers[label], int(number))
            self._spans[text] = self._everywhere(text, self._spans[text])
            self.found.update(span.kind for span in self._spans[text])

    def hide(self, text: str) -> str:
        """The text with placeholders."""
        spans = self._spans.get(text)
        if spans is None:
            spans = self._everywhere(text, self._find(text))
        if not spans:
            return text
        self.replaced.update(span.kind for span in spans)
        parts: list[str] = []
        place = 0
        json = text.lstrip()[:1] in ("{", "[")
        for span in spans:
            name = self._placeholder(span)
            if json and text[span.start : span.end].isdigit():
                before, after = text[max(0, span.start - 8) : span.start], text[span.end : span.end + 8]
                if _JSON_BEFORE.search(before) and _JSON_AFTER.match(after):
                    name = f'"{name}"'  # a number of JSON becomes a text of JSON
            parts += (text[place : span.start], name)
            place = span.end
        return "".join((*parts, text[place:]))

    def hide_excerpt(self, excerpt: str) -> str:
        """An excerpt with placeholders. It was cut to length, perhaps within a value: what is left of one goes too."""
        if not excerpt or not self._raws:
            return excerpt
        if len(self._raws) > _MOST:
            return "hidden: full of personal data"
        counted = self.replaced.copy()
        excerpt = self.hide(excerpt)
        self.replaced = counted
        for raw in self._raws:
            excerpt = _without_rest(excerpt, raw.casefold())
        return excerpt

    def _find(self, text: str) -> list[Finding]:
        found = self._detector.find(text)
        if self._people is not None:
            people = [item for item in self._people(text) if not self._detector.allowed(text[item.start : item.end])]
            found = merge(found, people)
        return found

    def _learn(self) -> None:
        """The forms in which values may come again: as they were written, and people by a part of their name."""
        for raw, span in sorted(self._raws.items(), key=lambda item: (-len(item[0]), item[0])):
            if span.kind == "name":
                for form in (raw, *raw.split()):
                    if len(form) >= _PART and form[0].isupper():
                        self._known.setdefault(form, span)
            elif span.kind in _ANNOUNCED and len(raw) >= _SHORTEST:
                self._known.setdefault(raw, span)
        if 0 < len(self._known) <= _MOST:
            forms = "|".join(map(re.escape, sorted(self._known, key=len, reverse=True)))
            self._again = re.compile(rf"(?<!\w)(?:{forms})(?!\w)")

    def _everywhere(self, text: str, found: list[Finding]) -> list[Finding]:
        """`found`, and the values found elsewhere in the row."""
        if self._again is None:
            return found
        again: list[Finding] = []
        for match in self._again.finditer(text):
            span = self._known[match.group()]
            again.append(Finding(match.start(), match.end(), span.kind, span.value))
        return merge(found, again)

    def _placeholder(self, span: Finding) -> str:
        # A person found by the first name alone is the one whose whole name stands elsewhere.
        known = self._known.get(span.value, span) if span.kind == "name" else span
        key = (span.kind, known.value)
        if key not in self._names:
            label = span.kind.upper()
            self._numbers[label] += 1
            self._names[key] = f"[{label}_{self._numbers[label]}]"
        return self._names[key]


def _without_rest(excerpt: str, raw: str) -> str:
    """Without the beginning of `raw` before the mark at which the excerpt was cut, and without its end after one."""
    folded = excerpt.casefold()
    if len(folded) != len(excerpt):  # folding changed the length: places would not agree
        return excerpt
    spans: list[tuple[int, int]] = []
    for mark in re.finditer("[…”“]|$|^", folded):
        for length in range(min(len(raw) - 1, mark.start()), _SHORTEST - 1, -1):
            if folded.endswith(raw[:length], 0, mark.start()):
                spans.append((mark.start() - length, mark.start()))
                break
        for length in range(min(len(raw) - 1, len(folded) - mark.end()), _SHORTEST - 1, -1):
            if folded.startswith(raw[-length:], mark.end()):
                spans.append((mark.end(), mark.end() + length))
                break
    for start, end in sorted(spans, reverse=True):
        excerpt = excerpt[:start] + excerpt[end:]
    return excerpt
