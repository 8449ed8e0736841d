"""Anthropic's Message Batches: the requests travel in one body, results come as unordered JSON Lines.

Limits: 100,000 requests and 256 MB a batch; a custom id has at most 64 of `[A-Za-z0-9_-]`. A batch carries no text of
ours, so that an ended one is recognised by the custom ids in its results, and a running one by nothing but the number
of its requests and the time.

After: the Anthropic API reference, "Message Batches".
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import urlsplit

import orjson

from distill.teachers.base import Reply
from distill.teachers.batch import Batch, Result
from distill.teachers.batch_http import HttpBatches, body_bytes, read_lines

if TYPE_CHECKING:
    import anthropic
    from anthropic.types.messages import MessageBatch

__all__ = ["AnthropicBatches"]

_DEFAULT = "https://api.anthropic.com"
_CREATE_S = 1800.0
_STATUS = {
    "invalid_request_error": 400,
    "authentication_error": 401,
    "billing_error": 402,
    "permission_error": 403,
    "not_found_error": 404,
    "request_too_large": 413,
    "rate_limit_error": 429,
    "timeout_error": 504,
    "overloaded_error": 529,
}
"""The HTTP status that an error would have come with online; 500 for all others."""


class AnthropicBatches(HttpBatches):
    """See `BatchTeacher`."""

    most_requests = 100_000
    most_bytes = 256_000_000
    frame = (b'{"requests":[', b",\n", b"]}")

    @property
    def account(self) -> str:
        parts = urlsplit(self._base())
        return f"anthropic {parts.netloc}{parts.path.rstrip('/')}"

    def line(self, custom_id: str, wire: Mapping[str, Any]) -> bytes:
        return orjson.dumps({"custom_id": custom_id, "params": dict(wire)})

    async def upload(self, path: Path) -> str:
        return ""

    async def create(self, path: Path, handle: str, tag: str) -> Batch:
        import httpx2

        sdk = self._sdk()
        content = await asyncio.to_thread(path.read_bytes)
        response = await self._said(
            sdk.post("/v1/messages/batches", cast_to=httpx2.Response, content=content), limit=_CREATE_S
        )
        from anthropic.types.messages import MessageBatch

        return _batch(MessageBatch.model_validate_json(response.content))

    async def look(self, batch_id: str) -> Batch:
        return _batch(await self._said(self._sdk().messages.batches.retrieve(batch_id)))

    async def cancel(self, batch_id: str) -> None:
        await self._said(self._sdk().messages.batches.cancel(batch_id))

    async def recent(self, since: float) -> list[Batch]:
        return await self._made_since(self._sdk().messages.batches.list(limit=100), _batch, since)

    async def fetch(self, batch: Batch, target: Path) -> None:
        await self._download(self._sdk().messages.batches.with_streaming_response.results(batch.id), target)

    def results(self, path: Path) -> Iterator[Result]:
        for line in read_lines(path):
            result = line.get("result")
            said = cast("dict[str, Any]", result) if isinstance(result, dict) else {}
            kind = said.get("type")
            if kind == "succeeded":
                yield Result(line["custom_id"], Reply(200, body_bytes(said.get("message"))))
            elif kind == "errored":
                error = said.get("error")
                yield Result(line["custom_id"], Reply(_status(error), body_bytes(error)))
            else:
                yield Result(line["custom_id"], None, str(kind))

    async def first_id(self, batch: Batch) -> str | None:
        if not batch.ended:
            return None
        start = await self._glimpse(self._sdk().messages.batches.with_streaming_response.results(batch.id))
        try:
            value = orjson.loads(start)
        except orjson.JSONDecodeError:
            return None
        named = cast("dict[str, Any]", value).get("custom_id") if isinstance(value, dict) else None
        return named if isinstance(named, str) else None

    def _base(self) -> str:
        return (self._config.base_url or _DEFAULT).rstrip("/").removesuffix("/messages").removesuffix("/v1")

    def _sdk(self) -> anthropic.AsyncAnthropic:
        if self._client is None:
            import anthropic

            headers = dict(self._config.headers)
            if self._config.base_url is not None:
                headers.setdefault("x-api-key", self._key)  # servers that speak the same wire know the older header
            self._client = anthropic.AsyncAnthropic(
                api_key=self._key, base_url=self._base(), default_headers=headers, timeout=_CREATE_S, max_retries=0
            )
        return self._client


def _status(error: Any) -> int:
    """Of `{"type": "error", "error": {"type": …}}`."""
    outer = cast("dict[str, Any]", error) if isinstance(error, dict) else {}
    inner = outer.get("error")
    kind = cast("dict[str, Any]", inner).get("type") if isinstance(inner, dict) else outer.get("type")
    return _STATUS.get(str(kind), 500)


def _batch(said: MessageBatch) -> Batch:
    counts = said.request_counts
    return Batch(
        id=said.id,
        ended=said.processing_status == "ended",
        status=said.processing_status,
        total=counts.processing + counts.succeeded + counts.errored + counts.canceled + counts.expired,
        created=said.created_at.timestamp(),
    )
