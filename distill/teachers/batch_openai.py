"""OpenAI's Batch API: a JSONL file is uploaded, a batch made of it; results come as an output file and an error file.

Limits: 50,000 requests and 200 MB a file. Our tag stands in the batch's metadata. A batch that fails its validation
carries out nothing; one that expired or was cancelled has in its output file what was finished.

After: the OpenAI API reference, "Batch" and "Files".
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
    import openai
    from openai.types import Batch as Described

__all__ = ["OpenAIBatches"]

_DEFAULT = "https://api.openai.com/v1"
_ENDPOINT = "/v1/chat/completions"
_TAG = "distill"
_ENDED = frozenset({"completed", "failed", "expired", "cancelled"})
_PASSING = frozenset({"token_limit_exceeded", "rate_limit_exceeded", "request_limit_exceeded"})
_UPLOAD_S = 1800.0


class OpenAIBatches(HttpBatches):
    """See `BatchTeacher`."""

    most_requests = 50_000
    most_bytes = 200_000_000
    frame = (b"", b"\n", b"\n")

    @property
    def account(self) -> str:
        parts = urlsplit(self._config.base_url or _DEFAULT)
        return f"openai {parts.netloc}{parts.path.rstrip('/').removesuffix('/chat/completions')}"

    def line(self, custom_id: str, wire: Mapping[str, Any]) -> bytes:
        return orjson.dumps({"custom_id": custom_id, "method": "POST", "url": _ENDPOINT, "body": dict(wire)})

    async def upload(self, path: Path) -> str:
        with path.open("rb") as file:
            made = await self._said(
                self._sdk().files.create(file=(path.name, file, "application/jsonl"), purpose="batch"),
                limit=_UPLOAD_S,
            )
        return made.id

    async def create(self, path: Path, handle: str, tag: str) -> Batch:
        made = self._sdk().batches.create(
            input_file_id=handle, endpoint=_ENDPOINT, completion_window="24h", metadata={_TAG: tag}
        )
        return _batch(await self._said(made))

    async def look(self, batch_id: str) -> Batch:
        return _batch(await self._said(self._sdk().batches.retrieve(batch_id)))

    async def cancel(self, batch_id: str) -> None:
        await self._said(self._sdk().batches.cancel(batch_id))

    async def recent(self, since: float) -> list[Batch]:
        return await self._made_since(self._sdk().batches.list(limit=100), _batch, since)

    async def fetch(self, batch: Batch, target: Path) -> None:
        await asyncio.to_thread(target.write_bytes, b"")
        for name in batch.files:
            opening = self._sdk().files.with_streaming_response.content(name)
            await self._download(opening, target, append=True)

    def results(self, path: Path) -> Iterator[Result]:
        for line in read_lines(path):
            response, error = line.get("response"), line.get("error")
            if isinstance(response, dict):
                said = cast("dict[str, Any]", response)
                status = said.get("status_code")
                yield Result(
                    line["custom_id"],
                    Reply(status if isinstance(status, int) else 500, body_bytes(said.get("body"))),
                )
            else:
                code = cast("dict[str, Any]", error).get("code") if isinstance(error, dict) else None
                yield Result(line["custom_id"], None, str(code or "no response"))

    async def first_id(self, batch: Batch) -> str | None:
        return batch.tag

    def _sdk(self) -> openai.AsyncOpenAI:
        if self._client is None:
            import openai

            base = (self._config.base_url or _DEFAULT).rstrip("/").removesuffix("/chat/completions")
            headers = dict(self._config.headers)
            if (urlsplit(base).hostname or "").endswith(".azure.com"):
                headers.setdefault("api-key", self._key)
            self._client = openai.AsyncOpenAI(
                api_key=self._key, base_url=base, default_headers=headers, timeout=_UPLOAD_S, max_retries=0
            )
            if self._config.base_url is not None:  # they name an account at OpenAI and are nobody else's business
                self._client.organization = self._client.project = None
        return self._client


def _batch(said: Described) -> Batch:
    errors = list(said.errors.data or ()) if said.errors is not None else []
    failed = said.status == "failed"
    first = errors[0] if errors else None
    problem = f"{first.code or 'error'}: {first.message or ''}"[:300] if first is not None else "no reason given"
    return Batch(
        id=said.id,
        ended=said.status in _ENDED,
        status=said.status,
        total=said.request_counts.total if said.request_counts is not None else 0,
        created=float(said.created_at or 0),
        tag=(said.metadata or {}).get(_TAG),
        files=tuple(name for name in (said.output_file_id, said.error_file_id) if name),
        problem=problem if failed else "",
        passing=failed and any(error.code in _PASSING for error in errors),
    )
