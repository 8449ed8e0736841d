"""National numbers of people, by the formats and check digits that python-stdnum knows.

A number whose form or check digits make it certain stands alone. One that any nine or ten digits could be counts only
where a word nearby says what it is.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

__all__ = ["bank_accounts", "cards", "national_numbers", "social_security"]

Span = tuple[int, int, str]
_NEAR = 48  # characters before a number in which a word may say what it is


@dataclass(frozen=True, slots=True)
class _Number:
    form: re.Pattern[str]
    module: str
    word: re.Pattern[str] | None = None


def _number(form: str, module: str, word: str | None = None) -> _Number:
    bounded = re.compile(rf"(?<![\w.\-/])(?:{form})(?![\w]|[.\-/]\d)")
    return _Number(bounded, module, re.compile(rf"(?i)(?<![a-z])(?:{word})") if word else None)


_NUMBERS = (
    _number(r"\d{8}-?[A-HJ-NP-TV-Z]", "es.dni"),
    _number(r"[XYZ]-?\d{7}-?[A-HJ-NP-TV-Z]", "es.nie"),
    _number(r"[A-Z]{6}\d{2}[A-Z]\d{2}[A-Z]\d{3}[A-Z]", "it.codicefiscale"),
    _number(r"[12] ?\d{2} ?\d{2} ?\d[\dAB] ?\d{3} ?\d{3} ?\d{2}", "fr.nir"),
    _number(r"\d{2}\.\d{2}\.\d{2}-\d{3}\.\d{2}|\d{11}", "be.nn"),
    _number(r"756\.?\d{4}\.?\d{4}\.?\d{2}", "ch.ssn"),
    _number(r"(?:\d{2})?\d{6}[-+]\d{4}", "se.personnummer"),
    _number(r"\d{6}[-+A-FU-Y]\d{3}[0-9A-FHJ-NPR-Y]", "fi.hetu"),
    _number(r"\d{6}-\d{4}", "dk.cpr"),
    _number(r"\d{6} ?\d{5}", "no.fodselsnummer"),
    _number(r"\d{11}", "pl.pesel"),
    _number(r"\d{13}", "ro.cnp"),
    _number(r"\d{6}/\d{3,4}", "cz.rc"),
    _number(r"\d{7}[A-W][A-IW]?", "ie.pps"),
    _number(r"\d{8} \d [A-Z0-9]{2}\d", "pt.cc"),
    _number(r"[1-9]\d{10}", "tr.tckimlik"),
    _number(r"\d{13}", "za.idnr"),
    _number(r"\d{6}-[1-8]\d{6}", "kr.rrn"),
    _number(r"\d{17}[\dX]", "cn.ric"),
    _number(r"[2-9]\d{3} \d{4} \d{4}", "in_.aadhaar"),
    _number(r"[A-Z]{3}[ABCFGHJLPT][A-Z]\d{4}[A-Z]", "in_.pan"),
    _number(r"[A-Z]{4}\d{6}[HM][A-Z]{5}[A-Z0-9]\d", "mx.curp"),
    _number(r"\d{3}\.\d{3}\.\d{3}-\d{2}", "br.cpf"),
    _number(r"\d{1,2}\.\d{3}\.\d{3}-[\dkK]", "cl.rut"),
    _number(r"\d{11}", "br.cpf", "cpf"),
    _number(r"[2-9]\d{11}", "in_.aadhaar", "aadh?aar"),
    _number(r"\d{9}", "nl.bsn", "bsn|burgerservice|sofi"),
    _number(r"\d{11}", "hr.oib", "oib"),
    _number(r"\d{10}", "bg.egn", "egn|егн"),
    _number(r"\d{11}", "ee.ik", "isikukood|personal code"),
    _number(r"\d{11}", "lt.asmens", "asmens"),
    _number(r"\d{2} ?\d{3} ?\d{3} ?\d{3}", "de.idnr", "steuer|tax id|idnr"),
    _number(r"\d{9}", "pt.nif", "nif|contribuinte"),
    _number(r"\d{3}[- ]?\d{3}[- ]?\d{3}", "ca.sin", "sin\\b|social insurance"),
    _number(r"\d{3} ?\d{3} ?\d{3}", "au.tfn", "tfn|tax file"),
    _number(r"\d{3} ?\d{3} ?\d{4}", "gb.nhs", "nhs"),
)
_RUN = re.compile(
    r"\d(?:[ .\-/+]?\d){6,24}|[A-Z]{2} ?\d{2} ?\d{2} ?\d{2}|[A-Z]{3,6}\d{2,6}|\d{6}[-+A-FU-Y]\d{3}|[XYZ]\d{7}"
)
"""Something of every number: only its surroundings are searched."""
_AROUND = 24  # characters

# The United Kingdom's insurance number has no check digit; its form and its barred prefixes are enough.
_NINO = re.compile(
    r"(?<![\w-])(?!BG|GB|KN|NK|NT|TN|ZZ)[A-CEGHJ-PR-TW-Z][A-CEGHJ-NPR-TW-Z] ?\d{2} ?\d{2} ?\d{2} ?[A-D](?![\w-])"
)
_SSN = re.compile(r"(?<![\w.\-/])(?:\d{3}-\d{2}-\d{4}|\d{3} \d{2} \d{4}|\d{9})(?![\w]|[.\-/]\d)")
_SSN_WORD = re.compile(r"(?i)\bssn\b|social security|itin\b|taxpayer id")
_CARD = re.compile(r"(?<![\w.\-])\d(?:[ -]?\d){12,18}(?![\w]|[.\-]\d)")
_BRANDS = re.compile(
    r"4(?:\d{12}|\d{15}|\d{18})"  # Visa
    r"|(?:5[1-5]\d{2}|222[1-9]|22[3-9]\d|2[3-6]\d{2}|27[01]\d|2720)\d{12}"  # Mastercard
    r"|3[47]\d{13}|3(?:0[0-5]|[68]\d)\d{11}|35(?:2[89]|[3-8]\d)\d{12}"  # American Express, Diners, JCB
    r"|(?:6011|64[4-9]\d|65\d{2})\d{12}|62\d{14,17}"  # Discover, UnionPay
)
_IBAN = re.compile(r"(?i)(?<![A-Za-z0-9])[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?(?![A-Za-z0-9])")


def national_numbers(text: str) -> Iterator[Span]:
    """Numbers by which states know people."""
    for start, end in _windows(text):
        for number in _NUMBERS:
            for match in number.form.finditer(text, start, end):
                near = max(0, match.start() - _NEAR)
                if number.word is not None and not number.word.search(text, near, match.start()):
                    continue
                if _module(number.module).is_valid(match.group()) and len(set(match.group())) > 3:
                    yield match.start(), match.end(), _compact(match.group())
        for match in _NINO.finditer(text, start, end):
            yield match.start(), match.end(), _compact(match.group())


def social_security(text: str) -> Iterator[Span]:
    """United States social security and individual taxpayer numbers; without dashes only where a word says so."""
    for match in _SSN.finditer(text):
        raw = match.group()
        if "-" not in raw and not _SSN_WORD.search(text, max(0, match.start() - _NEAR), match.start()):
            continue
        if _module("us.ssn").is_valid(raw.replace(" ", "")) or _module("us.itin").is_valid(raw.replace(" ", "-")):
            yield match.start(), match.end(), _compact(raw)


def cards(text: str) -> Iterator[Span]:
    """Payment cards: a brand's prefix and length, and Luhn's check digit (ISO/IEC 7812)."""
    for match in _CARD.finditer(text):
        digits = _compact(match.group())
        if _BRANDS.fullmatch(digits) and len(set(digits)) > 1 and _module("luhn").is_valid(digits):
            yield match.start(), match.end(), digits


def bank_accounts(text: str) -> Iterator[Span]:
    """IBANs: the country's length and layout, and the check digits (ISO 13616)."""
    for match in _IBAN.finditer(text):
        raw = match.group()
        # Words in capitals may follow: the longest beginning that is an account is it.
        ends = [len(raw), *(place for place in range(len(raw) - 1, 14, -1) if raw[place] == " ")]
        for end in ends:
            if _module("iban").is_valid(raw[:end]):
                yield match.start(), match.start() + end, _compact(raw[:end])
                break


def _windows(text: str) -> Iterator[tuple[int, int]]:
    """Where numbers may stand, with what is around them, not overlapping."""
    start = end = 0
    for run in _RUN.finditer(text):
        if run.start() - _AROUND > end:
            if end:
                yield start, end
            start = max(0, run.start() - _AROUND)
        end = min(len(text), run.end() + _AROUND)
    if end:
        yield start, end


def _compact(raw: str) -> str:
    return re.sub(r"[\s./+-]", "", raw).upper()


@cache
def _module(name: str) -> Any:
    return importlib.import_module(f"stdnum.{name}")
