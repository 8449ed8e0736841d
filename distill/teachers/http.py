"""What the providers behind an SDK share: one client, one attempt, and the SDK's exceptions turned into ours.

The SDK writes the request (address, authentication, its own headers) and says what went wrong on the way; its
retries are off and its parsing is not used, because the raw body is what the answer store keeps.
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
from distill.teachers.transport import BodyTooLarge, LeanClient, Transport, reply_of

__all__ = ["NO_KEY", "HttpTeacher", "SdkClient", "in_words"]

NO_KEY = "none"
"""Sent where the SDK insists on a key and the server wants none (vLLM, Ollama, llama.cpp)."""


class SdkClient(Protocol):
    """The part of both SDKs' clients that is used."""

    async def post(self, path: str, *, cast_to: type[httpx2.Response], content: bytes) -> httpx2.Response: ...

    async def close(self) -> None: ...


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
        self._client: SdkClient | None = None
        self._address = self._endpoint()

    # -- what a provider adds --------------------------------------------------------------------------------------

    def _endpoint(self) -> str:
        """The whole address that requests go to."""
        raise NotImplementedError

    def _open(self, client: LeanClient) -> SdkClient:
        """The SDK's client on top of `client`."""
        raise NotImplementedError

    def _shape(self, body: Any) -> bool:
        """Whether a parsed body is an answer."""
        raise NotImplementedError

    # -- the contract ----------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Open the client. Connections follow with the requests."""
        await self._opened()

    async def close(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            await client.close()

    async def send(self, wire: Mapping[str, Any], *, timeout: float) -> Reply:  # noqa: ASYNC109  # the contract
        """Send once; `timeout` covers everything from connecting to the last byte.

        Raises:
            TeacherError: TIMEOUT, CONNECTION, or MALFORMED (a body over the size limit).
        """
        client = self._client or await self._opened()
        # Members keep their order: models write structured answers in the order of the schema's properties.
        content = orjson.dumps(wire if isinstance(wire, dict) else dict(wire))
        try:
            async with asyncio.timeout(timeout):
                response = await client.post(self._address, cast_to=httpx2.Response, content=content)
            return self._masked(reply_of(response))
        except TimeoutError as error:
            raise TeacherError(FailureClass.TIMEOUT, f"no whole reply within {timeout:g} s") from error
        except Exception as error:
            # Both SDKs carry the response of an error status in `response`, and the cause of a broken connection.
            response = getattr(error, "response", None)
            if isinstance(response, httpx2.Response):
                return self._masked(reply_of(response))
            failure = self._broken(error)
            if failure is None:
                raise
            raise failure from (error.__cause__ or error)

    def failure(self, reply: Reply) -> TeacherError | None:
        """Why the reply is not an answer, or None; see `distill.teachers.failures`."""
        return failure_of(reply, is_answer=self._shape, scrub=self._scrub, wall=self._wall)

    async def _opened(self) -> SdkClient:
        if self._client is None:
            _allow_files(self._config.max_concurrency)
            self._client = self._open(LeanClient(self._given or Transport(self._address)))
        return self._client

    def _masked(self, reply: Reply) -> Reply:
        """The reply without our key: some proxies quote the request, and bodies are kept in the answer store."""
        if not any(echo in reply.body for echo in self._echoes):
            return reply
        body = reply.body
        for echo in self._echoes:
            body = body.replace(echo, b"***")
        return Reply(reply.status, body, reply.headers)

    def _broken(self, error: Exception) -> TeacherError | None:
        cause = error.__cause__ or error
        if not isinstance(cause, (httpx2.RequestError, OSError)):
            return None
        said = brief(str(cause) or type(cause).__name__, self._scrub)
        if isinstance(cause, BodyTooLarge):
            return TeacherError(FailureClass.MALFORMED, said, status=200)
        if isinstance(cause, httpx2.TimeoutException):
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
