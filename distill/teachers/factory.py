"""From a recipe's teacher section to the teacher. The providers' modules, and their SDKs, are imported only here and
only when used: `import distill` stays light."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Awaitable, Callable
from urllib.parse import urlsplit

from distill.errors import InputError
from distill.recipe import TeacherConfig, resolve_secret
from distill.teachers.base import Teacher
from distill.teachers.batch import BatchTeacher

__all__ = ["make_batches", "make_teacher"]

_HEADER = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
"""A header's name: a token of RFC 9110."""


def make_teacher(
    name: str,
    config: TeacherConfig,
    *,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> Teacher:
    """The teacher that section `teachers.<name>` describes, not yet started.

    Args:
        clock, sleep: seconds and waiting, for the simulated teacher.

    Raises:
        InputError: its key is missing.
    """
    try:
        key = resolve_secret(config.api_key)
    except LookupError as error:
        raise InputError(
            f"environment variable {error.args[0]} is not set",
            field=f"teachers.{name}.api_key",
            hint=f"export {error.args[0]}=… and run the same command again",
        ) from None
    _fit_for_headers(name, config, key)
    key = key.strip() if key is not None else None
    match config.provider:
        case "openai":
            from distill.teachers.openai import DEFAULT_URL, OpenAITeacher

            _needs_key(name, key, config.base_url or DEFAULT_URL, "api.openai.com", "OPENAI_API_KEY")
            return OpenAITeacher(config, api_key=key)
        case "anthropic":
            from distill.teachers.anthropic import DEFAULT_URL, AnthropicTeacher

            _needs_key(name, key, config.base_url or DEFAULT_URL, "api.anthropic.com", "ANTHROPIC_API_KEY")
            return AnthropicTeacher(config, api_key=key)
        case "local":
            from distill.teachers.local import LocalTeacher

            return LocalTeacher(config)
        case "simulated":
            from distill.teachers.simulated import SimulatedTeacher

            return SimulatedTeacher(config, clock=clock, sleep=sleep)


def make_batches(name: str, config: TeacherConfig) -> BatchTeacher:
    """The batch API of the teacher that section `teachers.<name>` describes; `make_teacher` has checked its key.

    Raises:
        InputError: its provider has none.
    """
    key = resolve_secret(config.api_key)
    key = key.strip() if key is not None else None
    match config.provider:
        case "openai":
            from distill.teachers.batch_openai import OpenAIBatches

            return OpenAIBatches(config, api_key=key)
        case "anthropic":
            from distill.teachers.batch_anthropic import AnthropicBatches

            return AnthropicBatches(config, api_key=key)
        case _:
            raise InputError(f"provider {config.provider} has no batch API", field=f"teachers.{name}.mode")


def _fit_for_headers(name: str, config: TeacherConfig, key: str | None) -> None:
    """Refuse what no HTTP header can carry, before a library does so in words that might quote it."""
    if key is not None and not _sendable(key.strip()):
        raise InputError("the key is empty, or holds characters that no key has", field=f"teachers.{name}.api_key")
    for header, value in config.headers.items():
        if not _HEADER.fullmatch(header) or not (value == "" or _sendable(value)):
            raise InputError("not fit for an HTTP header", field=f"teachers.{name}.headers.{header}")
    if config.base_url is not None and "@" in urlsplit(config.base_url).netloc:
        raise InputError("holds a user name or password; write api_key instead", field=f"teachers.{name}.base_url")


def _sendable(text: str) -> bool:
    return bool(text) and text.isascii() and text.isprintable()


def _needs_key(name: str, key: str | None, url: str, host: str, variable: str) -> None:
    if key is None and (urlsplit(url).hostname or "").lower() == host:
        raise InputError(
            f"{host} needs a key", field=f"teachers.{name}.api_key", hint=f"write api_key: ${{{variable}}}"
        )
