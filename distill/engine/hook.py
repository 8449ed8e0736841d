"""Telling somebody that a run has ended: a command that reads the summary, or a webhook that it is posted to.

What is told holds no secret, and the command's environment none of the recipe's. Neither may take more than half a
minute, and whatever goes wrong is returned as a warning: the rows are on disk either way.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import orjson

from distill.engine.events import Summary
from distill.errors import DistillError, InputError
from distill.io.redact import Redactor
from distill.recipe import HookConfig, HookEvent, resolve_secret

__all__ = ["Hook", "ended"]

_LIMIT_S = 30.0
_SAID = 200  # characters of a failed command's words that a warning quotes
_EVENTS: dict[str, HookEvent] = {"complete": "finished", "short": "stopped", "stopped": "stopped"}


class Hook:
    """A recipe's hook, ready to be called.

    Args:
        folder: where the command runs.
        secrets: values that the command's environment must not hold.

    Raises:
        InputError: a variable of the webhook's address is not set, or it is no address.
    """

    def __init__(self, config: HookConfig, *, folder: Path, secrets: tuple[str, ...] = ()) -> None:
        self._config, self._folder, self._hidden = config, folder, set(secrets)
        self._url = _url(config)

    @property
    def secrets(self) -> tuple[str, ...]:
        """The webhook's address, whole and in the parts that libraries log: those who know it may post to it."""
        if self._url is None:
            return ()
        parts = urlsplit(self._url)
        route = parts.path + (f"?{parts.query}" if parts.query else "")
        return tuple(text for text in (self._url, route) if len(text) >= 8)

    async def tell(self, event: str, summary: Mapping[str, Any], *, limit: float = _LIMIT_S) -> list[str]:
        """Call whoever is to be told of this event; returns what went wrong, in words without secrets."""
        if event not in self._config.on:
            return []
        mask = Redactor((*self._hidden, *self.secrets))
        told = orjson.dumps(mask.value({"event": event, **summary}), default=str)
        warnings: list[str] = []
        if self._config.command:
            warnings.append(await asyncio.to_thread(self._run, self._config.command, told, limit))
        if self._url is not None:
            warnings.append(await _post(self._url, told, limit))
        return [mask(warning) for warning in warnings if warning]

    def _run(self, command: tuple[str, ...], told: bytes, limit: float) -> str:
        name = Path(command[0]).name
        environment = {key: value for key, value in os.environ.items() if value not in self._hidden}
        with tempfile.TemporaryFile() as said:
            try:
                process = subprocess.Popen(  # noqa: S603 - the user's own command
                    command,
                    cwd=self._folder,
                    env=environment,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.DEVNULL,  # ours may carry the JSON result
                    stderr=said,
                    start_new_session=True,  # its children are ended with it, and a Ctrl-C is not theirs
                )
            except OSError as error:
                return f"hook {name}: {error.strerror or error}"
            try:
                process.communicate(told, timeout=limit)
            except subprocess.TimeoutExpired:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                return f"hook {name}: not done after {limit:g} s, ended"
            if not process.returncode:
                return ""
            said.seek(max(0, said.seek(0, os.SEEK_END) - 4 * _SAID))
            words = " ".join(said.read().decode("utf-8", "replace").split())[-_SAID:]
        return f"hook {name}: exit code {process.returncode}{f': {words}' if words else ''}"


async def _post(url: str, told: bytes, limit: float) -> str:
    import httpx2

    try:
        async with asyncio.timeout(limit), httpx2.AsyncClient(timeout=limit, follow_redirects=False) as client:
            reply = await client.post(url, content=told, headers={"content-type": "application/json"})
    except TimeoutError:
        return f"webhook: no answer within {limit:g} s"
    except (httpx2.HTTPError, httpx2.InvalidURL, OSError) as error:
        return f"webhook: {type(error).__name__}: {error}"
    return "" if reply.is_success else f"webhook: answered {reply.status_code}"


def _url(config: HookConfig) -> str | None:
    try:
        url = resolve_secret(config.webhook)
    except LookupError as error:
        raise InputError(
            f"the environment variable {error.args[0]} is not set", field="hook.webhook", hint="set it, or leave it out"
        ) from None
    if url is None:
        return None
    try:
        parts = urlsplit(url)
        fit = parts.scheme in ("http", "https") and bool(parts.hostname)
    except ValueError:
        fit = False
    if not fit:
        raise InputError("not an address: it begins with https:// or http://", field="hook.webhook")
    return url


def ended(recipe: str, run: Path, summary: Summary | None, error: Exception | None) -> tuple[HookEvent, dict[str, Any]]:
    """The event that a session ended with, and what is told of it: its summary, with a line for people in `text`."""
    told: dict[str, Any] = {"recipe": recipe, "run": str(run), "host": socket.gethostname()}
    if summary is not None:
        told |= summary.as_json() | {"exit_code": summary.exit_code}
    if summary is None or error is not None:
        said = error.message if isinstance(error, DistillError) else f"{type(error).__name__}: {error}"
        code = error.exit_code if isinstance(error, DistillError) else 1
        told |= {"state": "failed", "reason": said, "exit_code": code}
    event: HookEvent = _EVENTS.get(told["state"], "failed")
    rows = f", {told['kept']:,} rows kept, ${told['cost_usd']:,.2f}" if "kept" in told else ""
    told["text"] = f"distill {recipe}: {told['state']}{rows}: {told['reason']}"
    return event, told
