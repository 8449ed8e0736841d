"""`teachers:` who is asked, how fast, and at what price."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from decimal import Decimal
from typing import Any, Literal, cast
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, field_validator, model_validator

from distill.recipe.base import Section

__all__ = [
    "BatchConfig",
    "Limits",
    "Price",
    "Sampling",
    "Simulation",
    "TeacherConfig",
    "literal_secret",
    "resolve_secret",
]

_ENV = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")


class Sampling(Section):
    """How the teacher draws its tokens. What is left out is left to the provider."""

    temperature: float | None = Field(default=None, ge=0, le=5)
    """Randomness; 0 is greedy. Several different answers to one prompt need more than 0."""
    top_p: float | None = Field(default=None, gt=0, le=1)
    """Nucleus sampling."""
    max_tokens: int = Field(default=1024, ge=1)
    """Longest answer in tokens; also what is reserved from the budget before a request is sent."""
    stop: tuple[str, ...] = ()
    """Texts at which the answer ends."""
    seed: int | None = None
    """Sent to providers that take one; makes equal requests equal there."""
    top_logprobs: int | None = Field(default=None, ge=1, le=20)
    """Ask for the log-probabilities of the answer's tokens and of so many best ones at each place; rows keep them, for
    `train.method: distill`. OpenAI-compatible endpoints and `local` with llama.cpp give them."""
    extra: dict[str, Any] = Field(default_factory=dict[str, Any])
    """Further fields of the provider's request body, as they are (`reasoning_effort`, `top_k`, …)."""


class Limits(Section):
    """What the account or the server allows. Left out: no limit but `max_concurrency`."""

    requests_per_minute: float | None = Field(default=None, gt=0)
    """Requests started per minute."""
    tokens_per_minute: float | None = Field(default=None, gt=0)
    """Input and output tokens together."""
    input_tokens_per_minute: float | None = Field(default=None, gt=0)
    """Input tokens alone (Anthropic counts them apart)."""
    output_tokens_per_minute: float | None = Field(default=None, gt=0)
    """Output tokens alone."""
    requests_per_day: int | None = Field(default=None, ge=1)
    """Requests in a day, over all runs of the workspace."""
    tokens_per_day: int | None = Field(default=None, ge=1)
    """Input and output tokens together in a day, over all runs of the workspace."""
    day_starts_at: str | None = Field(default=None, pattern=r"^([01]\d|2[0-3]):[0-5]\d([+-]\d\d:\d\d)?$")
    """When the provider begins a new day: `00:00` (UTC) or `00:00-08:00`. Left out: the last 24 hours count."""


class Price(Section):
    """USD per million tokens. Needed only where the price list does not know the model."""

    input: Decimal = Field(ge=0)
    """Prompt tokens."""
    output: Decimal = Field(ge=0)
    """Answer tokens, reasoning included unless `reasoning` is given."""
    cached_input: Decimal | None = Field(default=None, ge=0)
    """Prompt tokens read from the provider's cache; without it they cost as `input`."""
    cache_write: Decimal | None = Field(default=None, ge=0)
    """Prompt tokens written to the provider's cache; without it they cost as `input`."""
    reasoning: Decimal | None = Field(default=None, ge=0)
    """Reasoning tokens; without it they cost as `output`."""


class Simulation(Section):
    """How the `simulated` provider behaves: an offline rehearsal, labelled as such in every artifact."""

    latency_s: float = Field(default=0.5, ge=0)
    """Median seconds an answer takes."""
    jitter: float = Field(default=0.0, ge=0, le=1)
    """Share by which the latency of single answers varies."""
    requests_per_minute: float | None = Field(default=None, gt=0)
    """Requests above this rate are answered 429 with Retry-After."""
    p429: float = Field(default=0.0, ge=0, le=1)
    """Share of requests answered 429."""
    p500: float = Field(default=0.0, ge=0, le=1)
    """Share of requests answered 500."""
    ptimeout: float = Field(default=0.0, ge=0, le=1)
    """Share of requests that never answer."""
    prefusal: float = Field(default=0.0, ge=0, le=1)
    """Share of answers that decline."""
    plength: float = Field(default=0.0, ge=0, le=1)
    """Share of answers cut at max_tokens."""
    pduplicate: float = Field(default=0.0, ge=0, le=1)
    """Share of answers that repeat an earlier text."""
    seed: int = 0
    """Which answers and faults are drawn."""


class BatchConfig(Section):
    """How questions gather into batches, under `mode: batch` and `mode: auto`."""

    discount: Decimal = Field(default=Decimal("0.5"), ge=0, le=1)
    """Share of the online price that the provider takes off."""
    max_requests: int = Field(default=50_000, ge=1, le=100_000)
    """Most requests in one batch; the provider's own limits on number and size hold as well."""
    in_flight: int = Field(default=50_000, ge=1, le=1_000_000)
    """Most requests that wait for batches at once. They are held in memory."""
    linger_s: float = Field(default=60.0, gt=0)
    """Longest seconds that questions gather. A batch leaves at once when nothing else of the run is under way."""
    poll_s: float = Field(default=60.0, gt=0)
    """Longest seconds between two looks at a batch; the first ones follow sooner."""
    within_hours: float = Field(default=24.0, gt=0)
    """For `auto`: hours of a session after which its batches are broken off and the rest is asked online."""
    min_requests: int = Field(default=50, ge=1)
    """For `auto`: fewer questions than this are asked online, where they take seconds."""


class TeacherConfig(Section):
    """One teacher: a model behind an endpoint."""

    provider: Literal["openai", "anthropic", "local", "simulated"] = "openai"
    """`openai` is any OpenAI-compatible endpoint; `local` runs an embedded model; `simulated` rehearses offline."""
    model: str
    """The model's name at the provider; for `local` a name of the catalogue (`distill models list`) or a path."""
    base_url: str | None = None
    """Endpoint, for example http://127.0.0.1:8000/v1. Left out: the provider's own."""
    api_key: SecretStr | None = None
    """Write `${NAME}` to take it from the environment. It is read when the run starts and written nowhere."""
    mode: Literal["online", "batch", "auto"] = "online"
    """`batch`: through the provider's batch API, at half the price and within 24 hours (OpenAI and Anthropic);
    `auto`: batches until `batch.within_hours` nears, then online. Answers are the same ones, and shared."""
    batch: BatchConfig = BatchConfig()
    """How batches are made."""
    max_concurrency: int = Field(default=64, ge=1, le=100_000)
    """Most requests in flight. The gateway finds the right number below it by itself."""
    limits: Limits = Limits()
    """Rates the gateway keeps to."""
    price: Price | None = None
    """USD per million tokens, over the price list."""
    sampling: Sampling = Sampling()
    """Defaults for every request to this teacher; a method may override single fields."""
    timeout_s: float = Field(default=120.0, gt=0)
    """Seconds one attempt may take. `local` has 3600 where nothing is said: its queue is this machine's own."""
    max_attempts: int = Field(default=6, ge=1, le=50)
    """Attempts for what is transient (429, 5xx, timeouts, broken connections) before the request fails."""
    patience_s: float = Field(default=600.0, gt=0)
    """Seconds that a teacher which has answered before may be down, asked now and then, before the run stops. Where
    others of its group answer, nothing stops."""
    structured: Literal["auto", "json_schema", "json_object", "prompt"] = "auto"
    """How structure is asked for: by the provider's JSON schema mode, its JSON mode, or in words. `auto`: schema."""
    engine: Literal["auto", "llama.cpp", "transformers"] = "auto"
    """For `local`: which engine runs the weights. `auto` measures both for seconds and keeps the faster."""
    precision: Literal["auto", "full"] = "auto"
    """For `local` with engine transformers: `auto` multiplies in 8 bits on processors that do it twice as fast as in
    16 (answers are drawn from almost the same distribution), `full` never."""
    context_tokens: int | None = Field(default=None, ge=256)
    """Tokens of context, prompt and answer together: what is longer is not sent. Left out: what the price list knows of
    the model. For `local`: what the engine is given for each request; left out, it fits the sampling limits."""
    simulate: Simulation = Simulation()
    """For `simulated`: its behaviour."""
    headers: dict[str, str] = Field(default_factory=dict[str, str])
    """Further HTTP headers (a gateway's route, an organisation). Not for secrets."""

    @model_validator(mode="before")
    @classmethod
    def _local_patience(cls, value: Any) -> Any:
        # An embedded engine answers many requests at once and each of them late: giving one up frees nothing.
        if isinstance(value, Mapping):
            given = cast("Mapping[str, Any]", value)
            if given.get("provider") == "local":
                return {"timeout_s": 3600.0, **given}
        return cast("Any", value)

    @field_validator("api_key")
    @classmethod
    def _names_a_variable(cls, value: SecretStr | None) -> SecretStr | None:
        text = "" if value is None else _ENV.sub("", value.get_secret_value())
        if text.startswith("$") or "${" in text:  # what was meant as a name would be sent as the key
            raise ValueError("no name of a variable: write ${NAME}, with letters, digits and `_` in it")
        return value

    @model_validator(mode="after")
    def _cross_check(self) -> TeacherConfig:
        if self.base_url is not None and not _is_address(self.base_url):
            raise ValueError(
                "base_url: not an http(s) address" + ("" if "@" in self.base_url else f": {self.base_url!r}")
            )
        if self.base_url is not None and self.provider in ("local", "simulated"):
            raise ValueError(f"base_url: provider {self.provider} has no endpoint of yours; leave it out")
        if self.sampling.top_logprobs is not None and (
            self.provider in ("anthropic", "simulated") or self.engine == "transformers"
        ):
            whose = f"provider {self.provider}" if self.provider != "local" else "engine transformers"
            raise ValueError(f"sampling.top_logprobs: {whose} gives no log-probabilities; leave it out")
        if self.mode != "online" and self.provider in ("local", "simulated"):
            raise ValueError(f"mode: provider {self.provider} has no batch API; leave it out")
        return self


def _is_address(url: str) -> bool:
    try:
        parts = urlsplit(url)
        named = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        return named and not re.search(r"\s", url)
    except ValueError:  # a port out of range, half a bracket
        return False


def resolve_secret(secret: SecretStr | None) -> str | None:
    """The secret's value, `${NAME}` taken from the environment.

    Raises:
        LookupError: the variable is not set; names it.
    """
    if secret is None:
        return None

    def value(match: re.Match[str]) -> str:
        name = match.group(1)
        if not os.environ.get(name):
            raise LookupError(name)
        return os.environ[name]

    return _ENV.sub(value, secret.get_secret_value())


def literal_secret(secret: SecretStr | None) -> bool:
    """Whether the secret itself stands in the recipe, instead of the name of a variable that holds it."""
    return secret is not None and not _ENV.search(secret.get_secret_value())
