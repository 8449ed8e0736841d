"""Secrets in text: private keys, passwords in addresses, keys of known services, values of variables called secret.

Keys of services are known by their published prefixes; what a prefix or a variable's name announces must look random
besides (Shannon entropy of its characters, as secret scanners of source code measure it), so that `sk-your-key-here`
and `password: required` stay. A random string that nothing announces is not taken for a secret: digests and ids look
the same.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator

__all__ = ["KEY_GATE", "api_keys", "credentials", "entropy", "private_keys", "secrets"]

Span = tuple[int, int, str]
"""Where a value begins and ends, and the value itself."""

_PREFIXED = re.compile(
    r"(?<![A-Za-z0-9_-])(?:"
    r"(?:AKIA|ASIA|ABIA|ACCA)[A-Z2-7]{16}"  # Amazon
    r"|gh[pousr]_[A-Za-z0-9]{36,251}|github_pat_[A-Za-z0-9_]{22,244}|glpat-[A-Za-z0-9_-]{20,64}"
    r"|xox[abeoprs]-[A-Za-z0-9-]{10,250}|xapp-\d-[A-Za-z0-9-]{10,250}"
    r"|(?:sk|rk)_(?:live|test)_[A-Za-z0-9]{16,247}|whsec_[A-Za-z0-9+/=]{24,128}"
    r"|sk-(?:ant-|proj-|svcacct-|admin-|or-v1-)?[A-Za-z0-9_-]{20,250}"
    r"|AIza[A-Za-z0-9_-]{35}|GOCSPX-[A-Za-z0-9_-]{28}|ya29\.[A-Za-z0-9_-]{20,250}"
    r"|hf_[A-Za-z0-9]{30,64}|gsk_[A-Za-z0-9]{40,64}|nvapi-[A-Za-z0-9_-]{60,80}|pplx-[A-Za-z0-9]{40,64}"
    r"|r8_[A-Za-z0-9]{37}|npm_[A-Za-z0-9]{36}|pypi-AgEI[A-Za-z0-9_-]{50,250}"
    r"|SG\.[A-Za-z0-9_-]{16,32}\.[A-Za-z0-9_-]{16,64}|shp(?:at|ca|pa|ss)_[a-fA-F0-9]{32}"
    r"|do[opr]_v1_[a-f0-9]{64}|dapi[a-f0-9]{32}|key-[a-f0-9]{32}|(?:AC|SK)[a-f0-9]{32}"
    r"|lin_api_[A-Za-z0-9]{40}|glsa_[A-Za-z0-9]{32}_[a-f0-9]{8}|LTAI[A-Za-z0-9]{12,20}"
    r"|\d{8,10}:AA[A-Za-z0-9_-]{33}|AGE-SECRET-KEY-1[0-9A-Z]{58}"
    r"|eyJ[A-Za-z0-9_-]{8,4000}\.eyJ[A-Za-z0-9_-]{8,8000}\.[A-Za-z0-9_-]{8,1400}"  # a signed token (RFC 7519)
    r")(?![A-Za-z0-9_])"
)
KEY_GATE = (
    r"AKIA|ASIA|ABIA|ACCA|gh[pousr]_|github_pat_|glpat-|xox[abeoprs]-|xapp-|[rs]k_(?:live|test)_|whsec_"
    r"|sk-[A-Za-z0-9_-]{20}|AIza|GOCSPX-|ya29\.|hf_[A-Za-z0-9]{30}|gsk_[A-Za-z0-9]{40}|nvapi-|pplx-|r8_[A-Za-z0-9]{37}"
    r"|npm_[A-Za-z0-9]{36}|pypi-|SG\.[A-Za-z0-9_-]{16}|shp(?:at|ca|pa|ss)_|do[opr]_v1_|dapi[a-f0-9]{32}"
    r"|key-[a-f0-9]{32}|(?:AC|SK)[a-f0-9]{32}|lin_api_|glsa_|LTAI|:AA[A-Za-z0-9_-]{33}|AGE-SECRET|eyJ[A-Za-z0-9_-]{8}"
)
"""Something of every prefixed key, in RE2 syntax."""
_HOOK = re.compile(
    r"https://(?:hooks\.slack\.com/services/|discord(?:app)?\.com/api/webhooks/)([A-Za-z0-9_/-]{20,200})"
)
_BEARER = re.compile(r"(?i)\b(?:bearer|basic)[ ]{1,3}([A-Za-z0-9._~+/-]{16,2000}={0,2})")
_ASSIGNED = re.compile(
    r"(?i)(?<![A-Za-z0-9])(?:[A-Za-z0-9]{1,20}[_-]){0,4}"
    r"(?:password|passwd|passphrase|passwort|contraseña|mot de passe|pwd|secret|token|api[ _-]?key|access[ _-]?key"
    r"|auth[ _-]?key|account[ _-]?key|pin code)(?:[_-][A-Za-z0-9]{1,12}){0,3}"
    r"[\"'`]?\s{0,4}(?::=|=>|[:=]|\bis\b:?)\s{0,4}[\"'`]?"
    r"(?P<value>[^\s\"'`,;<>(){}\[\]]{6,200})"
)
_PARAMETER = re.compile(
    r"(?i)[?&](?:api[_-]?key|key|access[_-]?token|auth[_-]?token|token|secret|client_secret|password|sig|signature)="
    r"(?P<value>[A-Za-z0-9%._~+/-]{8,2000}={0,2})"
)
_USERINFO = re.compile(
    r"(?i)(?<![a-z0-9+.-])[a-z][a-z0-9+.-]{1,20}://(?P<value>[^\s/@:\"'<>]{0,128}:[^\s/@\"'<>]{1,256})@(?=[\w\[])"
)
_KEY_BEGIN = re.compile(r"-----BEGIN (?:[A-Z0-9]{1,20} ){0,3}PRIVATE KEY(?: BLOCK)?-----")
_KEY_END = re.compile(r"-----END (?:[A-Z0-9]{1,20} ){0,3}PRIVATE KEY(?: BLOCK)?-----")
_LONGEST_KEY = 20_000
_KEY_BODY = re.compile(rf"(?:[A-Za-z0-9+/=:,\s]|\\[nr]){{0,{_LONGEST_KEY}}}")

_LONG = re.compile(r"[A-Za-z0-9_-]{16}")
_WORDS = ("pass", "pwd", "secret", "token", "key", "contrase", "pin code")
_EXAMPLE = re.compile(
    r"(?i)your|example|changeme|change_me|placeholder|redacted|dummy|xxxx|\*{3}|\.{3}|…|12345678$|^\$|^%|^\\|environ|getenv"
    r"|process\.env|config\.|settings\.|^(?:user(?:name)?|login|name|root|admin)?:(?:pass(?:word|wd)?|pwd|secret|token)$"
)


def entropy(text: str) -> float:
    """Shannon entropy of the characters, in bits a character."""
    counts = Counter(text)
    return -sum(count / len(text) * math.log2(count / len(text)) for count in counts.values())


def private_keys(text: str) -> Iterator[Span]:
    """Keys in PEM or OpenPGP armour, whole; of one that is cut off, what is there."""
    place = 0
    while begin := _KEY_BEGIN.search(text, place):
        end = _KEY_END.search(text, begin.end(), begin.end() + _LONGEST_KEY)
        following = _KEY_BEGIN.search(text, begin.end(), end.start() if end else begin.end())
        if end is None or following is not None:
            end = _KEY_BODY.match(text, begin.end())
        place = end.end() if end is not None else begin.end()
        yield begin.start(), place, text[begin.start() : place]


def credentials(text: str) -> Iterator[Span]:
    """`user:password` in addresses, and parameters of addresses that hold a key."""
    if "://" not in text:
        return
    for match in _USERINFO.finditer(text):
        if not _EXAMPLE.search(match["value"]):
            yield match.start("value"), match.end("value"), match["value"]
    for match in _PARAMETER.finditer(text):
        if _random(match["value"], 2.5):
            yield match.start("value"), match.end("value"), match["value"]


def api_keys(text: str) -> Iterator[Span]:
    """Keys that show whose they are."""
    if not _LONG.search(text):
        return
    for match in _PREFIXED.finditer(text):
        if _random(match.group(), 3.0):
            yield match.start(), match.end(), match.group()
    for match in _HOOK.finditer(text):
        if _random(match[1], 3.0):
            yield match.start(1), match.end(1), match[1]


def secrets(text: str) -> Iterator[Span]:
    """Values that a name or a header announces: `password = …`, `Authorization: Bearer …`."""
    folded = text.lower()
    for match in _BEARER.finditer(text) if "bearer" in folded or "basic" in folded else ():
        if _random(match[1], 3.0):
            yield match.start(1), match.end(1), match[1]
    for match in _ASSIGNED.finditer(text) if any(word in folded for word in _WORDS) else ():
        value = match["value"].rstrip(".!?:")
        if len(value) >= 6 and not value.startswith("//") and _random(value, 2.25):
            yield match.start("value"), match.start("value") + len(value), value


def _random(value: str, least: float) -> bool:
    """Whether a value looks made, not written: a digit in it, its characters spread, nothing of an example."""
    return any(char.isdigit() for char in value) and entropy(value) >= least and not _EXAMPLE.search(value)
