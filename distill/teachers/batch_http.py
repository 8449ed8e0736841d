"""What the two batch APIs share: one SDK client, one attempt, our errors, and results read from files of lines."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any, TypeVar

import httpx2
import orjson

from distill.errors import FailureClass, TeacherError
from distill.io.redact import Redactor
from distill.recipe import TeacherConfig
from distill.teachers.base import Reply
from distill.teachers.batch import Batch
from distill.teachers.failures import brief, failure_of
from distill.teachers.http import NO_KEY

__all__ = ["HttpBatches", "body_bytes", "read_lines"]

T = TypeVar("T")

_CALL_S = 120.0
_TRANSFER_S = 1800.0
_PREFIX = 1 << 20


class HttpBatches:
    """The half of a batch teacher that both SDKs share: one client, one attempt, our errors."""

    def __init__(self, config: TeacherConfig, *, api_key: str | None = None, wall: Callable[[], float] = time.time):
        self._config = config
        self._key = api_key or NO_KEY
        self._wall = wall
        self._scrub = Redactor((api_key,) if api_key else ())
        self._client: Any = None

    async def start(self) -> None:
        """Open the client. Connections follow with the calls."""
        self._sdk()

    async def close(self) -> None:
        """Close it; safe to call twice."""
        client, self._client = self._client, None
        if client is not None:
            await client.close()

    def _sdk(self) -> Any:
        """The SDK's client, opened once."""
        raise NotImplementedError

    async def _made_since(self, listing: Awaitable[Any], describe: Callable[[Any], Batch], since: float) -> list[Batch]:
        """Batches of the provider's list that were made at or after Unix time `since`."""
        found: list[Batch] = []
        page = await self._said(listing)
        while True:
            batches = [describe(item) for item in page.data]
            found += [batch for batch in batches if batch.created >= since]
            # Newest first: a page of old ones is followed by older ones.
            if not batches or (batches[0].created >= batches[-1].created and batches[0].created < since):
                return found
            if not page.has_next_page():
                return found
            page = await self._said(page.get_next_page())

    async def _said(self, call: Awaitable[T], *, limit: float = _CALL_S) -> T:
        """The value of one call to the SDK.

        Raises:
            TeacherError: `status` is set where the provider refused; where it is not, nobody knows what arrived.
        """
        try:
            async with asyncio.timeout(limit):
                return await call
        except TimeoutError:
            raise TeacherError(FailureClass.TIMEOUT, f"no whole reply within {limit:g} s") from None
        except Exception as error:
            raise await self._failure(error) from (error.__cause__ or error)

    async def _failure(self, error: Exception) -> Exception:
        response = getattr(error, "response", None)
        if isinstance(response, httpx2.Response):
            reply = Reply(response.status_code, await response.aread(), dict(response.headers.items()))
            failure = failure_of(reply, is_answer=lambda _: False, scrub=self._scrub, wall=self._wall)
            return failure or TeacherError(FailureClass.MALFORMED, "not a batch", status=reply.status)
        cause = error.__cause__ or error
        if isinstance(cause, httpx2.TimeoutException):
            return TeacherError(FailureClass.TIMEOUT, brief(str(cause) or type(cause).__name__, self._scrub))
        if isinstance(cause, (httpx2.RequestError, httpx2.StreamError, OSError)):
            return TeacherError(FailureClass.CONNECTION, brief(str(cause) or type(cause).__name__, self._scrub))
        return error

    async def _download(
        self, opening: AbstractAsyncContextManager[Any], target: Path, *, most: int | None = None, append: bool = False
    ) -> None:
        """Write a reply to a file as it comes; `most` bytes of it, or a little more."""

        async def pour() -> None:
            left = most
            async with opening as response:
                with target.open("ab" if append else "wb") as file:
                    async for part in response.iter_bytes(1 << 18):
                        file.write(part)
                        if left is not None:
                            left -= len(part)
                            if left <= 0:
                                return

        await self._said(pour(), limit=_TRANSFER_S)

    async def _glimpse(self, opening: AbstractAsyncContextManager[Any]) -> bytes:
        """The first line of a reply."""

        async def read() -> bytes:
            start = b""
            async with opening as response:
                async for part in response.iter_bytes(1 << 14):
                    start += part
                    if b"\n" in start or len(start) > _PREFIX:
                        break
            return start.partition(b"\n")[0]

        return await self._said(read())


def read_lines(path: Path) -> Iterator[dict[str, Any]]:
    """The objects of a results file. Only the line feed ends a line; what is not JSON is stepped over, and counts as a
    request without a result."""
    with path.open("rb") as file:
        for line in file:
            try:
                value = orjson.loads(line)
            except orjson.JSONDecodeError:
                value = _lenient(line)
            if isinstance(value, dict) and isinstance(value.get("custom_id"), str):  # pyright: ignore[reportUnknownMemberType]
                yield value  # pyright: ignore[reportUnknownVariableType]


def _lenient(line: bytes) -> Any:
    """A line with half a surrogate pair in a text: one answer is unreadable, and was paid. See `body_bytes`."""
    import json

    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None


def body_bytes(body: Any) -> bytes:
    """The body of one result, as it would have come online."""
    try:
        return orjson.dumps(body)
    except (TypeError, orjson.JSONEncodeError):
        import json

        return json.dumps(body).encode()
