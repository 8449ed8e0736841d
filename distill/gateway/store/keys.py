"""The key of a request: what makes two requests the same question.

It hashes the final wire payload with the provider's name and the sample number, and nothing else: no key, host,
timeout or time. Changing this changes every key, and makes every paid answer unfindable; a test holds a golden value.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from distill.io import canonical

__all__ = ["request_key"]


def request_key(provider: str, wire: Mapping[str, Any], sample: int) -> tuple[str, int]:
    """The key (BLAKE2b-128, 32 hex digits) and the length in bytes of what was hashed, an upper bound of its tokens.

    Raises:
        UnreadableText: a text in it cannot be written as UTF-8.
    """
    blob = canonical({"provider": provider, "sample": sample, "wire": wire})
    return hashlib.blake2b(blob, digest_size=16).hexdigest(), len(blob)
