"""Both providers' batch APIs on this machine, as they are documented: files, states, partial errors, expiry, results
in no order. With the online endpoints beside them, which give the same answers.

    async with BatchServer(work_s=0.2, script=["completed", "expired:0.5"]) as server:
        ...  server.base_url, server.anthropic_url, server.stats()

    with batch_server(...) as server:      # on a thread of its own, for clients in other processes

What becomes of the batches, in the order of their creation, is said by `script`; behind its end all are completed:

    completed        every request is carried out
    errors:0.2       a fifth of the requests fail with a status of their own (429, 500, 400 in turn)
    expired:0.5      half of the requests are carried out, then the batch expires
    cancelled:0.5    the same, cancelled from outside
    failed           OpenAI: validation fails, nothing is carried out
    queue_full       OpenAI: fails with token_limit_exceeded, nothing is carried out
    lost:0.1         a tenth of the results are missing from the files
    500, 503, 429    the creation is refused with this status, nothing is created
    accepted_500     the batch is created, and the reply is a 500 all the same
    accepted_reset   the batch is created, and the connection breaks before the reply

`hold_create_s` delays the reply to a creation, after the batch exists.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import random
import re
import threading
import time
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import orjson
from aiohttp import web

from tests.support.faults import answer

__all__ = ["BatchServer", "Job", "batch_server"]

_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
_OPENAI_MOST, _OPENAI_BYTES = 50_000, 200_000_000
_ANTHROPIC_MOST, _ANTHROPIC_BYTES = 100_000, 256_000_000
_OUTSIDE = 1_700_000_000  # creation times of batches that are somebody else's


@dataclass
class Job:
    """One batch, of either provider."""

    id: str
    dialect: Literal["openai", "anthropic"]
    requests: list[tuple[str, bytes]]
    fate: str
    share: float
    created: float
    metadata: dict[str, str] | None = None
    input_file: str = ""
    cancelled: float | None = None
    settled: bool = False
    results: dict[str, Any] = field(default_factory=dict[str, Any])
    files: dict[str, str] = field(default_factory=dict[str, str])
    fetched: int = 0


class BatchServer:
    """The server. Every argument may also be changed while it runs, as the attribute of the same name."""

    def __init__(
        self,
        *,
        work_s: float = 0.2,
        script: Sequence[str] = (),
        hold_create_s: float = 0.0,
        words: int = 12,
        seed: int = 0,
    ) -> None:
        self.work_s, self.hold_create_s = work_s, hold_create_s
        self.script = deque(script)
        self.words, self.seed = words, seed
        self.files: dict[str, bytes] = {}
        self.jobs: dict[str, Job] = {}
        self.paid: Counter[bytes] = Counter()
        self.online: Counter[bytes] = Counter()
        self.calls: Counter[str] = Counter()
        self.port = 0
        self._number = 0
        self._runner: web.AppRunner | None = None

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    @property
    def anthropic_url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def stats(self) -> dict[str, Any]:
        """What a provider's bill would show. `twice`: answers to a payload that was billed before; `orphans`: ended
        batches that somebody is billed for and nobody ever fetched."""
        for job in self.jobs.values():
            self._settle(job)
        ours = [job for job in self.jobs.values() if job.created > _OUTSIDE + 1e6]
        return {
            "batches": len(ours),
            "paid": sum(self.paid.values()),
            "distinct": len(self.paid),
            "twice": sum(count - 1 for count in self.paid.values()),
            "online": sum(self.online.values()),
            "orphans": sum(1 for job in ours if job.settled and not job.fetched and self._billed(job)),
            "running": sum(1 for job in ours if not job.settled),
        }

    async def start(self) -> BatchServer:
        app = web.Application(client_max_size=400_000_000)
        app.add_routes(
            [
                web.post("/v1/files", self._upload),
                web.get("/v1/files/{id}/content", self._content),
                web.post("/v1/batches", self._openai_create),
                web.get("/v1/batches", self._openai_list),
                web.get("/v1/batches/{id}", self._openai_look),
                web.post("/v1/batches/{id}/cancel", self._openai_cancel),
                web.post("/v1/messages/batches", self._anthropic_create),
                web.get("/v1/messages/batches", self._anthropic_list),
                web.get("/v1/messages/batches/{id}", self._anthropic_look),
                web.post("/v1/messages/batches/{id}/cancel", self._anthropic_cancel),
                web.get("/v1/messages/batches/{id}/results", self._anthropic_results),
                web.post("/v1/chat/completions", self._online_openai),
                web.post("/v1/messages", self._online_anthropic),
            ]
        )
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.port = self._runner.addresses[0][1]
        return self

    async def stop(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()

    async def __aenter__(self) -> BatchServer:
        return await self.start()

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    def somebody_elses(self, dialect: Literal["openai", "anthropic"], requests: int) -> None:
        """Put a batch of another user of the account among ours, running for as long as ours do."""
        self._add(Job("", dialect, [(f"other-{n}", b'{"model":"m"}') for n in range(requests)], "outside", 1.0, 0.0))

    # -- OpenAI --------------------------------------------------------------------------------------------------

    async def _upload(self, request: web.Request) -> web.StreamResponse:
        if (refusal := self._unauthorised(request, "openai")) is not None:
            return refusal
        parts: dict[str, bytes] = {}
        name = ""
        async for part in await request.multipart():
            parts[part.name] = bytes(await part.read())
            name = part.filename or name
        if parts.get("purpose") != b"batch" or "file" not in parts:
            return _openai_error(400, "invalid_request_error", "purpose must be batch")
        if len(parts["file"]) > _OPENAI_BYTES:
            return _openai_error(413, "file_too_large", "the file is larger than 200 MB")
        made = self._next("file")
        self.files[made] = parts["file"]
        self.calls["upload"] += 1
        return web.json_response(
            {
                "id": made,
                "object": "file",
                "bytes": len(parts["file"]),
                "created_at": int(time.time()),
                "filename": name,
                "purpose": "batch",
                "status": "processed",
            }
        )

    async def _content(self, request: web.Request) -> web.StreamResponse:
        if (refusal := self._unauthorised(request, "openai")) is not None:
            return refusal
        name = request.match_info["id"]
        if name not in self.files:
            return _openai_error(404, "not_found", "No such File object")
        self.calls["download"] += 1
        for job in self.jobs.values():
            if job.files.get("output") == name or (name == job.files.get("error") and "output" not in job.files):
                job.fetched += 1
        return web.Response(body=self.files[name], content_type="application/octet-stream")

    async def _openai_create(self, request: web.Request) -> web.StreamResponse:
        if (refusal := self._unauthorised(request, "openai")) is not None:
            return refusal
        given = orjson.loads(await request.read())
        if given.get("endpoint") != "/v1/chat/completions" or given.get("completion_window") != "24h":
            return _openai_error(400, "invalid_request_error", "unsupported endpoint or completion_window")
        if given.get("input_file_id") not in self.files:
            return _openai_error(400, "invalid_request_error", "no such input file")
        metadata = given.get("metadata")
        if metadata is not None and any(len(key) > 64 or len(text) > 512 for key, text in metadata.items()):
            return _openai_error(400, "invalid_request_error", "metadata is too long")
        return await self._created(request, "openai", metadata, given["input_file_id"], None)

    async def _openai_look(self, request: web.Request) -> web.StreamResponse:
        return await self._looked(request, "openai")

    async def _openai_list(self, request: web.Request) -> web.StreamResponse:
        if (refusal := self._unauthorised(request, "openai")) is not None:
            return refusal
        jobs = self._newest("openai")
        jobs, more = _page(jobs, request.query.get("after"), int(request.query.get("limit", "20")))
        return web.json_response(
            {
                "object": "list",
                "data": [self._openai(job) for job in jobs],
                "first_id": jobs[0].id if jobs else None,
                "last_id": jobs[-1].id if jobs else None,
                "has_more": more,
            }
        )

    async def _openai_cancel(self, request: web.Request) -> web.StreamResponse:
        return await self._cancelled(request, "openai")

    def _openai(self, job: Job) -> dict[str, Any]:
        self._settle(job)
        now = time.time()
        answered = sum(1 for value in job.results.values() if value["status"] == 200)
        failed = len(job.results) - answered
        fate = "completed" if job.fate not in ("expired", "cancelled", "failed", "queue_full") else job.fate
        status = {"queue_full": "failed"}.get(fate, fate) if job.settled else "in_progress"
        if not job.settled and job.cancelled is not None:
            status = "cancelling"
        elif not job.settled and now < job.created + self.work_s / 4:
            status = "validating"
        errors = None
        if job.settled and job.fate == "failed":
            errors = {"object": "list", "data": [{"code": "model_not_found", "line": 1, "message": "no such model"}]}
        elif job.settled and job.fate == "queue_full":
            text = "Enqueued token limit reached. Please try again once some in_progress batches have been completed."
            errors = {"object": "list", "data": [{"code": "token_limit_exceeded", "line": None, "message": text}]}
        return {
            "id": job.id,
            "object": "batch",
            "endpoint": "/v1/chat/completions",
            "errors": errors,
            "input_file_id": job.input_file,
            "completion_window": "24h",
            "status": status,
            "output_file_id": job.files.get("output"),
            "error_file_id": job.files.get("error"),
            "created_at": int(job.created),
            "expires_at": int(job.created) + 86_400,
            "completed_at": int(now) if status == "completed" else None,
            "request_counts": {"total": len(job.requests), "completed": answered, "failed": failed},
            "metadata": job.metadata,
        }

    # -- Anthropic -----------------------------------------------------------------------------------------------

    async def _anthropic_create(self, request: web.Request) -> web.StreamResponse:
        if (refusal := self._unauthorised(request, "anthropic")) is not None:
            return refusal
        raw = await request.read()
        if len(raw) > _ANTHROPIC_BYTES:
            return _anthropic_error(413, "request_too_large", "the batch is larger than 256 MB")
        given = orjson.loads(raw)
        items = [(item["custom_id"], orjson.dumps(item["params"])) for item in given["requests"]]
        problem = _wrong([name for name, _ in items], _ANTHROPIC_MOST)
        if problem:
            return _anthropic_error(400, "invalid_request_error", problem)
        return await self._created(request, "anthropic", None, "", items)

    async def _anthropic_look(self, request: web.Request) -> web.StreamResponse:
        return await self._looked(request, "anthropic")

    async def _anthropic_list(self, request: web.Request) -> web.StreamResponse:
        if (refusal := self._unauthorised(request, "anthropic")) is not None:
            return refusal
        jobs, more = _page(
            self._newest("anthropic"), request.query.get("after_id"), int(request.query.get("limit", "20"))
        )
        return web.json_response(
            {
                "data": [self._anthropic(job) for job in jobs],
                "has_more": more,
                "first_id": jobs[0].id if jobs else None,
                "last_id": jobs[-1].id if jobs else None,
            }
        )

    async def _anthropic_cancel(self, request: web.Request) -> web.StreamResponse:
        return await self._cancelled(request, "anthropic")

    async def _anthropic_results(self, request: web.Request) -> web.StreamResponse:
        if (refusal := self._unauthorised(request, "anthropic")) is not None:
            return refusal
        job = self.jobs.get(request.match_info["id"])
        if job is None:
            return _anthropic_error(404, "not_found_error", "no such batch")
        self._settle(job)
        if not job.settled:
            return _anthropic_error(404, "not_found_error", "results are not ready")
        lines: list[bytes] = []
        for name, value in job.results.items():
            status, body = value["status"], value["body"]
            if status == 200:
                result: dict[str, Any] = {"type": "succeeded", "message": orjson.Fragment(body)}
            elif status in (0, 1):
                result = {"type": "expired" if status == 0 else "canceled"}
            else:
                kinds = {429: "rate_limit_error", 500: "api_error", 400: "invalid_request_error"}
                error = {"type": kinds[status], "message": f"failed with {status}"}
                result = {"type": "errored", "error": {"type": "error", "error": error}}
            lines.append(orjson.dumps({"custom_id": name, "result": result}))
        random.Random(self.seed + len(lines)).shuffle(lines)
        job.fetched += 1
        self.calls["download"] += 1
        return web.Response(body=b"\n".join(lines) + b"\n", content_type="application/x-jsonl")

    def _anthropic(self, job: Job) -> dict[str, Any]:
        self._settle(job)
        counts = Counter(
            {200: "succeeded", 0: "expired", 1: "canceled"}.get(value["status"], "errored")
            for value in job.results.values()
        )
        ended = job.settled
        stamp = "%Y-%m-%dT%H:%M:%SZ"
        return {
            "id": job.id,
            "type": "message_batch",
            "processing_status": "ended" if ended else "canceling" if job.cancelled is not None else "in_progress",
            "request_counts": {
                "processing": 0 if ended else len(job.requests),
                **{kind: counts[kind] if ended else 0 for kind in ("succeeded", "errored", "canceled", "expired")},
            },
            "created_at": time.strftime(stamp, time.gmtime(job.created)),
            "expires_at": time.strftime(stamp, time.gmtime(job.created + 86_400)),
            "ended_at": time.strftime(stamp, time.gmtime()) if ended else None,
            "archived_at": None,
            "cancel_initiated_at": None,
            "results_url": f"{self.anthropic_url}/v1/messages/batches/{job.id}/results" if ended else None,
        }

    # -- both ------------------------------------------------------------------------------------------------------

    async def _created(
        self,
        request: web.Request,
        dialect: Literal["openai", "anthropic"],
        metadata: dict[str, str] | None,
        input_file: str,
        items: list[tuple[str, bytes]] | None,
    ) -> web.StreamResponse:
        error = _openai_error if dialect == "openai" else _anthropic_error
        word = self.script.popleft() if self.script else "completed"
        if word in ("500", "503", "429"):
            return error(int(word), "server_error", "not now")
        fate, _, share = word.partition(":")
        reply = fate if fate.startswith("accepted") else ""
        if reply:
            fate = "completed"
        if items is None:
            try:
                items = _openai_items(self.files[input_file])
            except ValueError:
                items, fate = [], "failed"
        job = self._add(Job("", dialect, items, fate, float(share or 0), time.time(), metadata, input_file))
        self.calls["create"] += 1
        await asyncio.sleep(self.hold_create_s)
        if reply == "accepted_500":
            return error(500, "server_error", "the server had an error")
        if reply == "accepted_reset":
            assert request.transport is not None
            request.transport.abort()
        return web.json_response(self._openai(job) if dialect == "openai" else self._anthropic(job))

    async def _looked(self, request: web.Request, dialect: Literal["openai", "anthropic"]) -> web.StreamResponse:
        if (refusal := self._unauthorised(request, dialect)) is not None:
            return refusal
        self.calls["look"] += 1
        job = self.jobs.get(request.match_info["id"])
        if job is None:
            error = _openai_error if dialect == "openai" else _anthropic_error
            return error(404, "not_found", "no such batch")
        return web.json_response(self._openai(job) if dialect == "openai" else self._anthropic(job))

    async def _cancelled(self, request: web.Request, dialect: Literal["openai", "anthropic"]) -> web.StreamResponse:
        if (refusal := self._unauthorised(request, dialect)) is not None:
            return refusal
        job = self.jobs[request.match_info["id"]]
        self._settle(job)
        error = _openai_error if dialect == "openai" else _anthropic_error
        if job.settled:
            return error(409 if dialect == "openai" else 400, "invalid_request_error", "the batch has ended")
        share = min(1.0, (time.time() - job.created) / self.work_s) if self.work_s else 1.0
        job.fate, job.share, job.cancelled = "cancelled", share, time.time()
        return web.json_response(self._openai(job) if dialect == "openai" else self._anthropic(job))

    def _add(self, job: Job) -> Job:
        job.id = self._next("batch" if job.dialect == "openai" else "msgbatch")
        job.created = job.created or time.time()
        self.jobs[job.id] = job
        return job

    def _newest(self, dialect: str) -> list[Job]:
        return [job for job in reversed(self.jobs.values()) if job.dialect == dialect]

    def _next(self, kind: str) -> str:
        self._number += 1
        return f"{kind}_{self._number:06d}"

    def _settle(self, job: Job) -> None:
        """Carry the batch out when its time has come."""
        due = job.created + self.work_s if job.cancelled is None else job.cancelled + self.work_s / 4
        if job.settled or time.time() < due:
            return
        job.settled = True
        if job.fate in ("failed", "queue_full", "outside"):
            job.results = {name: {"status": 400, "body": b"{}"} for name, _ in job.requests if job.fate == "outside"}
            return
        carried = round(len(job.requests) * (job.share if job.fate in ("expired", "cancelled") else 1))
        errors = (429, 500, 400)
        for number, (name, body) in enumerate(job.requests):
            digest = hashlib.blake2b(body, digest_size=8, key=b"%d" % self.seed).digest()
            if number >= carried:
                job.results[name] = {"status": 0 if job.fate == "expired" else 1, "body": b""}
            elif job.fate == "errors" and number % (step := max(1, round(1 / job.share))) == 0:
                status = errors[number // step % 3]
                job.results[name] = {"status": status, "body": _openai_error_body("server_error", f"{status}")}
            else:
                whole = answer(job.dialect, body, digest, self.words).data or b""
                self.paid[digest] += 1
                job.results[name] = {"status": 200, "body": whole.partition(b"\r\n\r\n")[2]}
        if job.fate == "lost":
            for name in list(job.results)[:: max(1, round(1 / job.share))]:
                digest = hashlib.blake2b(dict(job.requests)[name], digest_size=8, key=b"%d" % self.seed).digest()
                self.paid[digest] -= 1
                del job.results[name]
        if job.dialect == "openai":
            self._write_files(job)

    def _write_files(self, job: Job) -> None:
        good: list[bytes] = []
        bad: list[bytes] = []
        for name, value in job.results.items():
            status, body = value["status"], value["body"]
            line: dict[str, Any] = {"id": f"batch_req_{name}", "custom_id": name, "response": None, "error": None}
            if status in (0, 1):
                code = "batch_expired" if status == 0 else "batch_cancelled"
                line["error"] = {"code": code, "message": "This request could not be executed in time."}
            else:
                line["response"] = {"status_code": status, "request_id": name, "body": orjson.Fragment(body)}
            (good if status == 200 else bad).append(orjson.dumps(line))
        random.Random(self.seed + len(good)).shuffle(good)
        for kind, lines in (("output", good), ("error", bad)):
            if lines:
                job.files[kind] = self._next("file")
                self.files[job.files[kind]] = b"\n".join(lines) + b"\n"

    def _billed(self, job: Job) -> bool:
        return any(value["status"] == 200 for value in job.results.values())

    def _unauthorised(self, request: web.Request, dialect: str) -> web.Response | None:
        headers = request.headers
        if dialect == "openai":
            known = headers.get("authorization", "").startswith("Bearer ")
            return None if known else _openai_error(401, "invalid_api_key", "no key")
        known = "x-api-key" in headers or headers.get("authorization", "").startswith("Bearer ")
        if not known:
            return _anthropic_error(401, "authentication_error", "no key")
        if "anthropic-version" not in headers:
            return _anthropic_error(400, "invalid_request_error", "anthropic-version: header is required")
        return None

    async def _online_openai(self, request: web.Request) -> web.StreamResponse:
        return await self._answered(request, "openai")

    async def _online_anthropic(self, request: web.Request) -> web.StreamResponse:
        return await self._answered(request, "anthropic")

    async def _answered(self, request: web.Request, dialect: Literal["openai", "anthropic"]) -> web.StreamResponse:
        # The same members in the same order as a batch's, so that the digests agree.
        body = orjson.dumps(orjson.loads(await request.read()))
        digest = hashlib.blake2b(body, digest_size=8, key=b"%d" % self.seed).digest()
        self.paid[digest] += 1
        self.online[digest] += 1
        whole = answer(dialect, body, digest, self.words).data or b""
        return web.Response(body=whole.partition(b"\r\n\r\n")[2], content_type="application/json")


def _openai_items(file: bytes) -> list[tuple[str, bytes]]:
    items: list[tuple[str, bytes]] = []
    for line in file.split(b"\n"):
        if line:
            value = orjson.loads(line)
            if value.get("method") != "POST" or value.get("url") != "/v1/chat/completions":
                raise ValueError("wrong method or url")
            items.append((value["custom_id"], orjson.dumps(value["body"])))
    if problem := _wrong([name for name, _ in items], _OPENAI_MOST):
        raise ValueError(problem)
    return items


def _wrong(names: Sequence[str], most: int) -> str:
    if not names or len(names) > most:
        return f"between 1 and {most} requests are allowed"
    if len(set(names)) < len(names):
        return "custom_id is not unique"
    if not all(_ID.fullmatch(name) for name in names):
        return "custom_id is malformed"
    return ""


def _page(jobs: list[Job], after: str | None, limit: int) -> tuple[list[Job], bool]:
    if after is not None:
        names = [job.id for job in jobs]
        jobs = jobs[names.index(after) + 1 :]
    return jobs[:limit], len(jobs) > limit


def _openai_error_body(code: str, text: str) -> bytes:
    return orjson.dumps({"error": {"message": text, "type": code, "param": None, "code": code}})


def _openai_error(status: int, code: str, text: str) -> web.Response:
    return web.Response(status=status, body=_openai_error_body(code, text), content_type="application/json")


def _anthropic_error(status: int, kind: str, text: str) -> web.Response:
    value: Mapping[str, Any] = {"type": "error", "error": {"type": kind, "message": text}}
    return web.Response(status=status, body=orjson.dumps(value), content_type="application/json")


@contextlib.contextmanager
def batch_server(**options: Any) -> Iterator[BatchServer]:
    """A server on a thread of its own."""
    server = BatchServer(**options)
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="batch-server", daemon=True)
    thread.start()
    asyncio.run_coroutine_threadsafe(server.start(), loop).result(30)
    try:
        yield server
    finally:
        asyncio.run_coroutine_threadsafe(server.stop(), loop).result(30)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
