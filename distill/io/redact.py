"""Secrets are replaced before any text leaves the process: log, error, event, console."""

from __future__ import annotations

import logging
from typing import Any

__all__ = ["RedactingFilter", "Redactor"]

_MASK = "***"


class Redactor:
    """Replaces every occurrence of known secrets. Texts under 4 characters are no secrets: masking them would
    only garble."""

    def __init__(self, secrets: tuple[str, ...] = ()) -> None:
        # Longest first: a secret may hold another one.
        self._secrets = tuple(sorted({s for s in secrets if len(s) >= 4}, key=len, reverse=True))

    def __call__(self, text: str) -> str:
        for secret in self._secrets:
            if secret in text:
                text = text.replace(secret, _MASK)
        return text

    def value(self, value: Any) -> Any:
        """The same for every text inside a JSON-like value."""
        if isinstance(value, str):
            return self(value)
        if isinstance(value, dict):
            return {self(str(key)): self.value(item) for key, item in value.items()}  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType]
        if isinstance(value, (list, tuple)):
            return [self.value(item) for item in value]  # pyright: ignore[reportUnknownVariableType]
        return value


class RedactingFilter(logging.Filter):
    """Masks secrets in the finished text of log records, whichever library wrote them."""

    def __init__(self, redactor: Redactor) -> None:
        super().__init__()
        self._redactor = redactor

    def filter(self, record: logging.LogRecord) -> bool:
        record.msg = self._redactor(record.getMessage())
        record.args = ()
        if record.exc_info:
            record.exc_text = self._redactor(logging.Formatter().formatException(record.exc_info))
            record.exc_info = None
        return True
