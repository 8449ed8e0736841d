"""`--debug`: what the libraries log, with the secrets of the environment masked."""

from __future__ import annotations

import logging
import os
import re

from distill.cli.console import err
from distill.io.redact import RedactingFilter, Redactor

__all__ = ["log_everything", "mask"]

_SECRET_NAME = re.compile(r"KEY|TOKEN|SECRET|PASSWORD", re.IGNORECASE)


def log_everything() -> None:
    """Send every library's records at DEBUG to stderr.

    A recipe names its secrets by variable, so every variable that sounds like one is masked, whichever the
    recipe turns out to use.
    """
    secrets = tuple(value for name, value in os.environ.items() if _SECRET_NAME.search(name) and len(value) >= 8)
    handler = logging.StreamHandler(err.file)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    handler.addFilter(RedactingFilter(Redactor(secrets)))
    logging.basicConfig(level=logging.DEBUG, handlers=[handler], force=True)


def mask(secrets: tuple[str, ...]) -> None:
    """Mask a recipe's own secrets too, whatever they are called and wherever they stand."""
    for handler in logging.getLogger().handlers:
        handler.addFilter(RedactingFilter(Redactor(secrets)))
