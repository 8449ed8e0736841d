"""The endpoint: OpenAI's chat completions over served releases.

Who may ask: this machine. Names of other hosts in a request are refused (a web page could otherwise reach the port
through a name of its own), and with a key every request has to carry it. What the wire can hold and is not done here is
refused, never ignored: tools, several choices, formats, images.
"""

from __future__ import annotations

import hmac
import secrets
import time
from collections.abc import AsyncGenerator, Mapping
from dataclasses import replace
from typing import Annotated, Any, Literal

import orjson
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from distill.errors import DistillError, InputError
from distill.io import loads
from distill.release.serving import Answer, Backend, Sampling, TooLong

__all__ = ["make_app"]

_MAX_BODY = 2 << 20
_MAX_WAITING = 64


class _Part(BaseModel):
    type: Literal["text"]
    text: str


class _Turn(BaseModel):
    model_config = ConfigDict(extra="ignore")
    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[_Part]

    def plain(self) -> dict[str, str]:
        text = self.content if isinstance(self.content, str) else "".join(part.text for part in self.content)
        return {"role": "system" if self.role == "developer" else self.role, "content": text}


class _Format(BaseModel):
    type: Literal["text"]


class _Ask(BaseModel):
    """A request. Unknown members are let pass (clients send many that change nothing), those that would change the
    answer are declared with the one value that is done."""

    model_config = ConfigDict(extra="ignore")
    model: str
    messages: list[_Turn] = Field(min_length=1)
    max_tokens: int | None = Field(default=None, ge=1, le=32768)
    max_completion_tokens: int | None = Field(default=None, ge=1, le=32768)
    temperature: float | None = Field(default=None, ge=0, le=2)
    top_p: float | None = Field(default=None, gt=0, le=1)
    seed: Annotated[int, Field(ge=0, lt=1 << 63)] | None = None
    stop: str | list[str] | None = None
    stream: bool = False
    n: Literal[1] | None = None
    response_format: _Format | None = None
    logprobs: Literal[False] | None = None
    tools: Annotated[list[Any], Field(max_length=0)] | None = None


def make_app(
    backends: Mapping[str, Backend], *, key: str | None = None, hosts: tuple[str, ...], max_tokens: int = 512
) -> Starlette:
    """The application.

    Args:
        backends: by the name a request asks for.
        key: what `Authorization: Bearer` has to hold; None: nothing is asked for.
        hosts: names under which it may be reached; `*` for all.
        max_tokens: of an answer, where a request does not say.
    """
    waiting = 0

    async def health(_: Request) -> Response:
        return JSONResponse({"status": "ok", "models": list(backends)})

    async def models(request: Request) -> Response:
        if refusal := _unauthorised(request, key):
            return refusal
        return JSONResponse({"object": "list", "data": [_about(name, b) for name, b in backends.items()]})

    async def chat(request: Request) -> Response:
        nonlocal waiting
        if refusal := _unauthorised(request, key):
            return refusal
        try:
            ask = _Ask.model_validate(loads(await _body(request)))
        except ValidationError as error:
            first = error.errors()[0]
            field = ".".join(str(part) for part in first["loc"])
            return _error(400, f"{field}: {first['msg']}", "invalid_request_error", param=field)
        except (ValueError, InputError) as error:
            return _error(400, f"the body is not a JSON object of at most {_MAX_BODY} bytes: {error}")
        except ClientDisconnect:
            return Response(status_code=499)
        backend = backends.get(ask.model)
        if backend is None:
            known = ", ".join(backends)
            return _error(404, f"no such model: {ask.model[:80]}; served are: {known}", code="model_not_found")
        if waiting >= _MAX_WAITING:
            return _error(503, f"{waiting} requests are waiting", "overloaded_error")
        sampling = Sampling(
            ask.max_completion_tokens or ask.max_tokens or max_tokens,
            ask.temperature or 0.0,
            ask.top_p or 1.0,
            ask.seed,
        )
        waiting += 1
        try:
            answer = await backend.answer([turn.plain() for turn in ask.messages], sampling)
        except TooLong as error:
            return _error(400, error.message, code="context_length_exceeded")
        except InputError as error:
            return _error(400, error.message)
        except DistillError as error:
            return _error(500, error.message, "server_error")
        finally:
            waiting -= 1
        value = _completion(ask.model, backend, _cut(answer, ask.stop))
        return _stream(value) if ask.stream else JSONResponse(value)

    return Starlette(
        routes=[
            Route("/health", health),
            Route("/v1/models", models),
            Route("/v1/chat/completions", chat, methods=["POST"]),
        ],
        middleware=[Middleware(TrustedHostMiddleware, allowed_hosts=list(hosts), www_redirect=False)],
    )


async def _body(request: Request) -> bytes:
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > _MAX_BODY:
            raise ValueError("it is larger")
    return bytes(body)


def _unauthorised(request: Request, key: str | None) -> Response | None:
    if key is None:
        return None
    given = request.headers.get("authorization", "").removeprefix("Bearer ")
    if hmac.compare_digest(given.encode("utf-8", "replace"), key.encode()):
        return None
    return _error(401, "the key is missing or wrong", "authentication_error")


def _about(name: str, backend: Backend) -> dict[str, Any]:
    release = backend.listed.release
    return {
        "id": name,
        "object": "model",
        "created": 0,
        "owned_by": "distill",
        "release": release.title,
        "base": release.base,
        "weights_digest": release.weights_digest,
        "proven": release.unproven is None,
    }


def _cut(answer: Answer, stop: str | list[str] | None) -> Answer:
    """Up to the first of the request's own stop texts."""
    stops = [stop] if isinstance(stop, str) else stop or []
    ends = [place for text in stops if text and (place := answer.text.find(text)) >= 0]
    if not ends:
        return answer
    return replace(answer, text=answer.text[: min(ends)], finish="stop")


def _completion(model: str, backend: Backend, answer: Answer) -> dict[str, Any]:
    message = {"role": "assistant", "content": answer.text}
    if answer.reasoning:
        message["reasoning_content"] = answer.reasoning
    return {
        "id": f"chatcmpl-{secrets.token_hex(12)}",
        "object": "chat.completion",
        "created": int(time.time()),
        "model": model,
        "system_fingerprint": backend.listed.release.weights_digest[:16],
        "choices": [{"index": 0, "message": message, "finish_reason": answer.finish, "logprobs": None}],
        "usage": {
            "prompt_tokens": answer.prompt_tokens,
            "completion_tokens": answer.completion_tokens,
            "total_tokens": answer.prompt_tokens + answer.completion_tokens,
        },
    }


def _stream(value: dict[str, Any]) -> Response:
    """The whole answer as one event of a stream, for clients that can only read streams."""
    choice = value["choices"][0]
    head = {name: value[name] for name in ("id", "created", "model", "system_fingerprint")}

    def chunk(delta: dict[str, Any], finish: str | None) -> bytes:
        choices = [{"index": 0, "delta": delta, "finish_reason": finish}]
        return b"data: " + orjson.dumps({**head, "object": "chat.completion.chunk", "choices": choices}) + b"\n\n"

    async def events() -> AsyncGenerator[bytes]:
        yield chunk(choice["message"], None)
        yield chunk({}, choice["finish_reason"])
        yield b"data: [DONE]\n\n"

    return StreamingResponse(events(), media_type="text/event-stream")


def _error(
    status: int, message: str, kind: str = "invalid_request_error", *, code: str | None = None, param: str | None = None
) -> Response:
    error = {"message": message, "type": kind, "param": param, "code": code}
    return JSONResponse({"error": error}, status_code=status)
