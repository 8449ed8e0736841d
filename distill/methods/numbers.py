"""Numbers as people and models write final answers: `1,000`, `$2.50`, `3/4`, `\\frac{3}{4}`, `1 1/2`, `50%`, `7 km`.

Exact arithmetic on fractions. A text with two different numbers and no sign of which one is meant has none.
Symbolic mathematics is not attempted.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from fractions import Fraction

__all__ = ["Number", "equal_numbers", "last_number", "number"]

_LONGEST = 400  # characters: a final answer is short, and a thousand digits are not an answer
_LARGEST_EXPONENT = 300


@dataclass(frozen=True, slots=True)
class Number:
    value: Fraction
    percent: bool = False


def number(text: str) -> Number | None:
    """The number that `text` states, or None."""
    text = _plain(text)
    if len(text) > _LONGEST or _SYMBOLIC.search(text):
        return None
    # Of an equation, the right side; of "A or B" nothing is made.
    text = re.split(r"[=≈]", text)[-1]
    found = {_value(match) for match in _NUMBER.finditer(text)}
    if len(found) != 1:
        return None
    return found.pop()


def last_number(text: str) -> Number | None:
    """The last number that stands in `text`, whatever else does; None where there is none."""
    tail = text.rstrip()[-2 * _LONGEST :]
    found = list(_NUMBER.finditer(_plain(tail)))
    return _value(found[-1]) if found else None


def equal_numbers(one: Number, other: Number, tolerance: float = 0.0) -> bool:
    """Whether they differ by at most `tolerance`, relative to the larger. `50%` is 50 and 0.5."""
    pairs = [(one.value, other.value)]
    if one.percent != other.percent:
        pairs.append((one.value / 100, other.value) if one.percent else (one.value, other.value / 100))
    return any(abs(a - b) <= Fraction(tolerance) * max(abs(a), abs(b)) for a, b in pairs)


_DIGITS = r"(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?|\.\d+"
_NUMBER = re.compile(
    rf"""
    (?<![\w.])(?P<sign>[+-]?)\s*
    (?:
        (?P<whole>\d+)\s+(?P<above>\d+)\s*/\s*(?P<below>\d+)            # 1 1/2
      | (?P<top>{_DIGITS})\s*/\s*(?P<bottom>{_DIGITS})                  # 3/4
      | (?P<plain>{_DIGITS})(?:[eE](?P<exponent>[+-]?\d+))?
    )
    \s*(?P<percent>%|percent\b)?
    """,
    re.VERBOSE,
)
_SYMBOLIC = re.compile(r"[π√∞^]|(?<![a-z])(?:sqrt|log|ln|sin|cos|tan|pi)(?![a-z])|\d ?[nxyz]\b")
_FRACTION = re.compile(r"\\[dt]?frac\s*\{\s*([^{}]+?)\s*\}\s*\{\s*([^{}]+?)\s*\}")
_POWER = re.compile(r"\s*(?:x|×|\*|·|\\times|\\cdot)\s*10\s*\^\s*[{(]?\s*([+-]?\d+)\s*[})]?")
_SPACING = re.compile(r"\\(?:left|right|quad|displaystyle|[,;:! ()\[\]])")
_DIGIT_GROUPS = re.compile(r"(?<=\d)[\u00a0\u2009\u202f](?=\d{3})")
_MARKS = re.compile(r"[$€£¥₹\\*_`{}]")
_WORDS = re.compile(r"\\(?:text|mathrm|mathbf|mbox|boxed)\s*\{([^{}]*)\}")


def _plain(text: str) -> str:
    """Without LaTeX, currency and emphasis; one kind of minus; exponents as `e`."""
    text = _FRACTION.sub(r" \1/\2", text[: 4 * _LONGEST])
    text = _POWER.sub(r"e\1", text)
    text = _WORDS.sub(r" \1 ", text)
    text = _SPACING.sub("", text)
    text = _DIGIT_GROUPS.sub("", text)
    text = unicodedata.normalize("NFKC", text).replace("−", "-").replace("–", "-").replace("⁄", "/")
    return _MARKS.sub("", text).strip()


def _value(match: re.Match[str]) -> Number | None:
    part = match.groupdict()
    percent = part["percent"] is not None
    try:
        if part["whole"] is not None:
            value = Fraction(part["whole"]) + Fraction(int(part["above"]), int(part["below"]))
        elif part["top"] is not None:
            value = _fraction(part["top"]) / _fraction(part["bottom"])
        else:
            exponent = int(part["exponent"] or 0)
            if abs(exponent) > _LARGEST_EXPONENT:
                return None
            value = _fraction(part["plain"]) * Fraction(10) ** exponent
    except ZeroDivisionError:
        return None
    return Number(-value if part["sign"] == "-" else value, percent)


def _fraction(digits: str) -> Fraction:
    return Fraction(digits.replace(",", ""))
