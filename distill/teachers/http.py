"""What the providers behind an SDK share: one head, one attempt, and what goes wrong on the way as errors of ours.

The SDK writes the head of the request (address, authentication, its own headers), once; its retries and its parsing are
not used, because the raw body is what the answer store keeps.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import Callable, Mapping
from typing import Any, Protocol
from urllib.parse import urlsplit

import httpx2
import orjson

from distill.errors import FailureClass, TeacherError
from distill.io.redact import Redactor
from distill.recipe import TeacherConfig
from distill.teachers.base import Reply
from distill.teachers.failures import brief, failure_of
from distill.teachers.transport import BodyTooLarge, Doubled, Head, Pool, Sender, written_by

__all__ = ["NO_KEY", "HttpTeacher", "SdkClient", "in_words"]

NO_KEY = "none"
"""Sent where the SDK insists on a key and the server wants none (vLLM, Ollama, llama.cpp)."""


class SdkClient(Protocol):
    """The part of both SDKs' clients that is used."""

    async def post(self, path: str, *, cast_to: type[httpx2.Response], content: bytes) -> httpx2.Response: ...


class HttpTeacher:
    """One model behind an HTTP endpoint. Subclasses add the wire format.

    Args:
        config: the recipe's section.
        api_key: the secret's value; None for servers that want none.
        transport: instead of the network; `httpx2.MockTransport` doubles a whole provider.
        wall: Unix time, for Retry-After headers that name a date.
    """

    provider: str

    def __init__(
        self,
        config: TeacherConfig,
        *,
        api_key: str | None = None,
        transport: httpx2.AsyncBaseTransport | None = None,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self.model = config.model
        self._config = config
        self._key = api_key or NO_KEY
        self._given = transport
        self._wall = wall
        self._scrub = Redactor((api_key,) if api_key else ())
        self._echoes = _spellings(api_key)
        self._head: Head | None = None
        self._sender: Sender | None = None
        self._address = self._endpoint()

    # -- what a provider adds --------------------------------------------------------------------------------------

    def _endpoint(self) -> str:
        """The whole address that requests go to."""
        raise NotImplementedError

    def _sdk(self, client: httpx2.AsyncClient) -> SdkClient:
        """The SDK's client on top of `client`."""
        raise NotImplementedError

    def _shape(self, body: Any) -> bool:
        """Whether a parsed body is an answer."""
        raise NotImplementedError

    # -- the contract ----------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Have the head written. Connections follow with the requests."""
        await self._opened()

    async def close(self) -> None:
        sender, self._sender = self._sender, None
        if sender is not None:
            await sender.close()

    async def send(self, wire: Mapping[str, Any], *, timeout: float) -> Reply:  # noqa: ASYNC109  # the contract
        """Send once; `timeout` covers everything from connecting to the last byte.

        Raises:
            TeacherError: TIMEOUT, CONNECTION, or MALFORMED (a body over the size limit).
        """
        sender, head = self._sender, self._head
        if sender is None or head is None:
            sender, head = await self._opened()
        # Members keep their order: models write structured answers in the order of the schema's properties.
        content = orjson.dumps(wire if isinstance(wire, dict) else dict(wire))
        try:
            async with asyncio.timeout(timeout):
                reply = await sender.send(head, content)
        except TimeoutError as error:
            raise TeacherError(FailureClass.TIMEOUT, f"no whole reply within {timeout:g} s") from error
        except (httpx2.RequestError, OSError) as error:
            raise self._broken(error) from error
        return self._masked(reply)

    def failure(self, reply: Reply) -> TeacherError | None:
        """Why the reply is not an answer, or None; see `distill.teachers.failures`."""
        return failure_of(reply, is_answer=self._shape, scrub=self._scrub, wall=self._wall)

    async def _opened(self) -> tuple[Sender, Head]:
        if self._head is None:
            self._head = await written_by(
                lambda client: self._sdk(client).post(self._address, cast_to=httpx2.Response, content=b"{}")
            )
        if self._sender is None:
            _allow_files(self._config.max_concurrency)
            self._sender = Pool(self._address) if self._given is None else Doubled(self._given)
        return self._sender, self._head

    def _masked(self, reply: Reply) -> Reply:
        """The reply without our key: some proxies quote the request, and bodies are kept in the answer store."""
        if not any(echo in reply.body for echo in self._echoes):
            return reply
        body = reply.body
        for echo in self._echoes:
            body = body.replace(echo, b"***")
        return Reply(reply.status, body, reply.headers)

    def _broken(self, error: httpx2.RequestError | OSError) -> TeacherError:
        said = brief(str(error) or type(error).__name__, self._scrub)
        if isinstance(error, BodyTooLarge):
            return TeacherError(FailureClass.MALFORMED, said, status=200)
        if isinstance(error, httpx2.TimeoutException):
            return TeacherError(FailureClass.TIMEOUT, said)
        return TeacherError(FailureClass.CONNECTION, f"{urlsplit(self._address).netloc}: {said}")


def in_words(schema: Mapping[str, Any]) -> str:
    """A schema asked for in words, to stand at the end of the last user turn."""
    return (
        "Answer with one JSON value that satisfies this JSON Schema, and with nothing else around it:\n"
        + orjson.dumps(dict(schema)).decode()
    )


def _spellings(key: str | None) -> tuple[bytes, ...]:
    """How a body may quote the key: as it is, or as a JSON string. A placeholder such as `ollama` or `not-needed` is
    none: it would be masked in answers where it is a word."""
    if not key or len(key) < 8 or (len(key) < 16 and not any(char.isdigit() for char in key)):
        return ()
    plain = key.encode("utf-8", "surrogatepass")
    quoted = json.dumps(key)[1:-1].encode()
    return tuple({plain, quoted, quoted.replace(b"/", b"\\/")})


def _allow_files(connections: int) -> None:
    """Raise the soft limit of open files where it would be too low for so many connections."""
    with contextlib.suppress(ImportError, ValueError, OSError):
        import resource

        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        wanted = connections + 512
        if soft != resource.RLIM_INFINITY and soft < wanted:
            most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
