"""Personal data and secrets in one text: where each value stands, of what kind, and what makes two of them the same.

Rules only: forms, check digits, published prefixes. What is found by a rule of a stronger kind is not looked at by a
weaker one (a card's digits are no phone number). Every expression takes linear time: it begins at a boundary and has
bounded repeats, because rows may be megabytes of anything.
"""

from __future__ import annotations

import ipaddress
import re
from collections import deque
from collections.abc import Callable, Collection, Iterator, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import phonenumbers

from distill.errors import InputError
from distill.filters.privacy.ids import bank_accounts, cards, national_numbers, social_security
from distill.filters.privacy.secrets import KEY_GATE, api_keys, credentials, private_keys, secrets
from distill.recipe import suggest
from distill.recipe.quality import PiiKind

__all__ = ["GATE", "Detector", "Finding", "merge"]

_DIGITS = r"\d(?:[ ().\-/]{0,2}\d){6}"
GATE = (
    rf"@|://|-----BEGIN|{_DIGITS}|\d\.\d{{1,3}}\.\d|[0-9A-Fa-f]:[0-9A-Fa-f]{{0,4}}:[0-9A-Fa-f]|[A-Z]{{2}} ?\d{{2}}"
    rf"|{KEY_GATE}"
    r"|(?i:bearer|basic) +[A-Za-z0-9._~+/-]{16}"
    r"|(?i:(?:pass|pwd|secret|token|key|contraseña|mot de passe|pin code)[\w-]{0,40}[\"'`]?\s{0,4}(?:=|:|is\b))"
)
"""RE2 expression that every text with a value matches. Text columns are searched for it first, all rows at once."""


class Finding(NamedTuple):
    """A value in a text."""

    start: int
    end: int
    kind: PiiKind
    value: str
    """The value without the way it was written: two findings of one value are equal in it."""


Span = tuple[int, int, str]

_EMAIL = re.compile(
    r"(?<![\w.%+'-])[\w%+'-]{1,64}(?:\.[\w%+'-]{1,64}){0,8}@(?:\w(?:[\w-]{0,61}\w)?\.){1,8}[^\W\d_]{2,24}(?![\w-])"
)
_PHONE = re.compile(r"(?<![\w.,/:=#$€£@-])(?:\+|\(\+)?\(?\d[\d().\-/ \u00a0]{5,24}\d(?![\w%@]|[.,]\d)")
_PHONE_WORD = re.compile(
    r"(?i)\b(?:call|phone|telephone|tel|mobile|cell|fax|whatsapp|sms|text|dial|reach|ring|number is|handy|telefon"
    r"|teléfono|téléphone|móvil)\b[^\d<>=]{0,40}$"
)
_PHONE_NOUN = re.compile(
    r"(?i)\b(?:phone|telephone|tel|mobile|cell|fax|whatsapp|sms|handy|telefon|teléfono|téléphone|móvil)\b"
)
_FEW_DIGITS, _ROUND = 8, "0000"
_UNSPACED = re.compile(
    r"[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3005-\u3007\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af\uf900-\ufaff]"
)
"""Letters of scripts that put no space before a value or after it."""
_SEVEN_DIGITS, _DOTTED = re.compile(_DIGITS), re.compile(r"\d\.\d{1,3}\.\d")
_NUMERIC = frozenset({"credit_card", "ssn", "phone"})
_IPV4 = re.compile(r"(?<![\w.])(?:\d{1,3}\.){3}\d{1,3}(?![\w]|\.\d)")
_IPV6 = re.compile(r"(?<![\w:.])(?:[0-9A-Fa-f]{0,4}:){2,7}[0-9A-Fa-f]{0,4}(?![\w:])")
_NETWORK = re.compile(r"[\d.]+/\d{1,2}(?!\d)")
_VERSION = re.compile(r"(?i)(?:\bv|version|release|section|chapter|build)\W{0,3}$")


class Detector:
    """Finds the values of some kinds."""

    def __init__(self, kinds: Collection[PiiKind], *, regions: Sequence[str] = (), allow: Sequence[str] = ()) -> None:
        """
        Raises:
            InputError: phonenumbers knows no such region.
        """
        for region in regions:
            if region not in phonenumbers.SUPPORTED_REGIONS:
                raise InputError(
                    f"no such region: {region}; {suggest(region, sorted(phonenumbers.SUPPORTED_REGIONS))}",
                    field="regions",
                )
        self._regions = tuple(regions)
        self._allowed = {value.casefold() for value in allow}
        finders: dict[PiiKind, Callable[[str], Iterator[Span]]] = {
            "private_key": private_keys,
            "credentials": credentials,
            "api_key": api_keys,
            "secret": secrets,
            "email": _emails,
            "iban": bank_accounts,
            "credit_card": cards,
            "ssn": social_security,
            "national_id": national_numbers,
            "phone": self._phones,
            "ip": _addresses,
        }
        self._finders: list[tuple[PiiKind, Callable[[str], Iterator[Span]]]] = [
            (kind, finder) for kind, finder in finders.items() if kind in kinds
        ]

    def find(self, text: str) -> list[Finding]:
        """The values in `text`, in order, none overlapping another."""
        found: list[Finding] = []
        # Letters that touch a value without being part of it make way, one space for each.
        whole, text = text, text if text.isascii() else _UNSPACED.sub(" ", text)
        numeric = _SEVEN_DIGITS.search(text) is not None
        for kind, finder in self._finders:
            if kind in _NUMERIC and not numeric:
                continue
            found = self._add(found, kind, finder(text), text)
            if kind == "email" and whole is not text:  # an address may be written in such letters itself
                found = self._add(found, kind, finder(whole), whole)
        return found

    def _add(self, found: list[Finding], kind: PiiKind, spans: Iterator[Span], text: str) -> list[Finding]:
        new = [
            Finding(start, end, kind, value) for start, end, value in spans if not self.allowed(text[start:end], value)
        ]
        return merge(found, new) if new else found

    def allowed(self, *forms: str) -> bool:
        """Whether the user lets a value stay, in any of its forms."""
        return any(form.casefold() in self._allowed for form in forms)

    def _phones(self, text: str) -> Iterator[Span]:
        for candidate in _PHONE.finditer(text):
            raw = candidate.group()
            if sum(char.isdigit() for char in raw) < 7:
                continue
            # A number that the text calls one need not be in use; bare digits are one only then.
            begin = candidate.start()
            word = None if "/" in raw else _PHONE_WORD.search(text, max(0, begin - 48), begin)
            announced = word is not None
            if raw.isdigit() and (word is None or not _dialled(raw, word.group())):
                continue
            regions: Sequence[str | None] = (None,) if "+" in raw else self._regions
            for region in regions:
                matches = _matches(raw, region, announced)
                for start, end, value in matches:
                    yield begin + start, begin + end, value
                if matches:
                    break


def _dialled(digits: str, announced: str) -> bool:
    """Whether bare digits after a word like "call" or "phone" are a number of it: people call functions a million
    times, too."""
    if digits.endswith(_ROUND):
        return False
    return len(digits) > _FEW_DIGITS or _PHONE_NOUN.search(announced) is not None


def merge(found: list[Finding], spans: list[Finding]) -> list[Finding]:
    """Both in order, without those of `spans` that overlap an earlier finding."""
    result: list[Finding] = []
    left = deque(found)
    taken = 0
    for span in sorted(spans):
        while left and left[0].start < span.end:
            taken = left[0].end
            result.append(left.popleft())
        if span.start >= taken and (not result or span.start >= result[-1].end):
            result.append(span)
            taken = span.end
    return [*result, *left]


def _emails(text: str) -> Iterator[Span]:
    if "@" not in text:
        return
    for match in _EMAIL.finditer(text):
        # `git@host:path` names a repository, not a person.
        if not (match.group().startswith("git@") and text[match.end() : match.end() + 1] in (":", "/")):
            yield match.start(), match.end(), match.group().casefold()


@lru_cache(maxsize=4096)  # a row tends to repeat its numbers
def _matches(raw: str, region: str | None, announced: bool) -> tuple[Span, ...]:
    library: Any = phonenumbers  # its matcher has no types
    leniency = library.Leniency.POSSIBLE if announced else library.Leniency.STRICT_GROUPING
    return tuple(
        (match.start, match.end, library.format_number(match.number, library.PhoneNumberFormat.E164))
        for match in library.PhoneNumberMatcher(raw, region, leniency=leniency)
    )


def _addresses(text: str) -> Iterator[Span]:
    fours = _IPV4.finditer(text) if _DOTTED.search(text) else ()
    sixes = _IPV6.finditer(text) if text.count(":") > 1 else ()
    for match in (*fours, *sixes):
        raw = match.group()
        try:
            address = ipaddress.ip_address(raw)
        except ValueError:
            continue
        if address.is_loopback or address.is_unspecified or address.is_multicast or raw.startswith("255."):
            continue
        few = address.version == 6 and sum(map(bool, raw.split(":"))) < 3  # C++ and Rust write a::b
        version = _VERSION.search(text[max(0, match.start() - 16) : match.start()])
        if not few and not version and not _is_network(text[match.start() : match.end() + 4]):
            yield match.start(), match.end(), str(address)


def _is_network(text: str) -> bool:
    """Whether an address stands for many: `10.0.0.0/8`."""
    prefixed = _NETWORK.match(text)
    try:
        return prefixed is not None and ipaddress.ip_network(prefixed.group()).num_addresses > 1
    except ValueError:
        return False
