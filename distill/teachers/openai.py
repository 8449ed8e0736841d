"""Any OpenAI-compatible endpoint: OpenAI, Azure, OpenRouter, vLLM, Ollama, llama.cpp, … (chat completions).

Differences between servers that are decided here:

- The limit of an answer is `max_completion_tokens` on api.openai.com, and on Azure for the o-series and gpt-5 and
  later; `max_tokens` everywhere else. Either one given in `sampling.extra` takes its place.
- A schema is sent as `response_format` of type `json_schema`, marked `strict` when it keeps the rules of strict mode
  (every object closed, every property required); `structured: json_object` sends JSON mode and the schema in words;
  `structured: prompt` words alone.
- A query in `base_url` (`?api-version=…`) goes with every request; hosts under azure.com also get the key as `api-key`.
- Without a key a placeholder is sent, except to api.openai.com, which `make_teacher` refuses.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, cast
from urllib.parse import urlsplit, urlunsplit

import httpx2

from distill.teachers.base import Message, Reading, Request
from distill.teachers.http import HttpTeacher, SdkClient, in_words
from distill.teachers.reading import is_chat, read_chat

__all__ = ["DEFAULT_URL", "OpenAITeacher"]

DEFAULT_URL = "https://api.openai.com/v1"

_NEW_LIMIT = re.compile(r"(?:.*/)?(?:o\d|gpt-(?:[5-9]|\d\d))")
_NOT_IN_A_NAME = re.compile(r"[^A-Za-z0-9_-]+")


class OpenAITeacher(HttpTeacher):
    """A model behind the chat completions API."""

    provider: str = "openai"

    def wire(self, request: Request, sample: int) -> dict[str, Any]:
        """The body of the request. `sample` does not enter it: the provider draws by itself."""
        params = request.params
        messages = [{"role": message.role, "content": message.content} for message in request.messages]
        wire: dict[str, Any] = {"model": self.model, "messages": messages, self._limit: params.max_tokens}
        if params.temperature is not None:
            wire["temperature"] = params.temperature
        if params.top_p is not None:
            wire["top_p"] = params.top_p
        if params.stop:
            wire["stop"] = list(params.stop)
        if params.seed is not None:
            wire["seed"] = params.seed
        if params.top_logprobs is not None:
            wire |= {"logprobs": True, "top_logprobs": params.top_logprobs}
        if request.schema is not None:
            self._ask_for(request.schema, wire, request.messages)
        if params.extra:
            if "max_tokens" in params.extra or "max_completion_tokens" in params.extra:
                del wire[self._limit]
            wire.update(params.extra)
        return wire

    def read(self, body: bytes) -> Reading:
        """Read an answer; see `distill.teachers.reading`."""
        return read_chat(body, self.model)

    def _ask_for(self, schema: Mapping[str, Any], wire: dict[str, Any], messages: tuple[Message, ...]) -> None:
        mode = self._config.structured
        if mode in ("json_object", "prompt"):
            last = max((n for n, message in enumerate(messages) if message.role == "user"), default=None)
            if last is not None:
                wire["messages"][last] = {"role": "user", "content": f"{messages[last].content}\n\n{in_words(schema)}"}
        if mode == "json_object":
            wire["response_format"] = {"type": "json_object"}
        elif mode != "prompt":
            plain = {key: value for key, value in schema.items() if key not in ("$schema", "$id")}
            title = schema.get("title")
            name = _NOT_IN_A_NAME.sub("_", title if isinstance(title, str) else "")[:64].strip("_") or "answer"
            wire["response_format"] = {
                "type": "json_schema",
                "json_schema": {"name": name, "strict": _is_strict(plain), "schema": plain},
            }

    # -- the endpoint ----------------------------------------------------------------------------------------------

    def _endpoint(self) -> str:
        scheme, host, path, query, _ = urlsplit(self._config.base_url or DEFAULT_URL)
        path = path.rstrip("/").removesuffix("/chat/completions")
        name = (urlsplit(f"//{host}").hostname or "").lower()
        self._azure = name.endswith(".azure.com")
        new = name == "api.openai.com" or (self._azure and bool(_NEW_LIMIT.match(self.model)))
        self._limit = "max_completion_tokens" if new else "max_tokens"
        return urlunsplit((scheme, host, f"{path}/chat/completions", query, ""))

    def _sdk(self, client: httpx2.AsyncClient) -> SdkClient:
        import openai

        headers = dict(self._config.headers)
        if self._azure:
            headers.setdefault("api-key", self._key)
        sdk = openai.AsyncOpenAI(
            api_key=self._key,
            base_url=self._config.base_url or DEFAULT_URL,
            default_headers=headers,
            timeout=self._config.timeout_s,
            max_retries=0,
            http_client=client,
        )
        if self._config.base_url is not None:
            # The SDK takes these from the environment; they name an account at OpenAI and are nobody else's business.
            sdk.organization = sdk.project = None
        return cast(SdkClient, sdk)

    def _shape(self, body: Any) -> bool:
        return is_chat(body)


def _is_strict(schema: Any) -> bool:
    """Whether a schema keeps the rules of strict mode: an object at the root, and every object closed with all of
    its properties required."""
    return isinstance(schema, Mapping) and cast("Mapping[str, Any]", schema).get("type") == "object" and _closed(schema)


def _closed(value: Any) -> bool:
    if isinstance(value, list):
        return all(_closed(item) for item in cast("list[Any]", value))
    if not isinstance(value, Mapping):
        return True
    node = cast("Mapping[str, Any]", value)
    properties = node.get("properties")
    if node.get("type") == "object" or properties is not None:
        names: set[str] = set(properties or ())
        if node.get("additionalProperties") is not False or set(node.get("required") or ()) != names:
            return False
    for key, inner in node.items():
        if key in ("enum", "const", "default", "examples", "required"):
            continue
        inner_values = list(cast("Mapping[str, Any]", inner).values()) if key in ("properties", "$defs") else [inner]
        if not all(_closed(item) for item in inner_values):
            return False
    return True
