"""What is said to a teacher and what comes back. One file a provider implements `Teacher`.

A teacher speaks the wire and nothing else: limits, retries, money and storage belong to the gateway.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import Any, Literal, Protocol

from distill.errors import TeacherError
from distill.teachers.logprobs import TokenLogprob

__all__ = ["Answer", "Finish", "Message", "Reading", "Reply", "Request", "SamplingParams", "Teacher", "Usage"]

Finish = Literal["stop", "length", "refusal", "filtered", "empty"]


@dataclass(frozen=True, slots=True)
class Message:
    role: Literal["system", "user", "assistant"]
    content: str


@dataclass(frozen=True, slots=True)
class SamplingParams:
    """Sampling parameters, resolved: a teacher's defaults under the method's overrides. `None` is left to the
    provider."""

    max_tokens: int = 1024
    temperature: float | None = None
    top_p: float | None = None
    stop: tuple[str, ...] = ()
    seed: int | None = None
    extra: Mapping[str, Any] = field(default_factory=dict[str, Any], hash=False)
    top_logprobs: int | None = None


@dataclass(frozen=True, slots=True)
class Request:
    """One question. `teacher` is the recipe's name for the teacher, or for a group of them; `schema` a JSON Schema the
    answer must satisfy; `each` how the teachers of a group draw, where they do not all draw by `params`."""

    teacher: str
    messages: tuple[Message, ...]
    params: SamplingParams = SamplingParams()
    schema: Mapping[str, Any] | None = field(default=None, hash=False)
    each: Mapping[str, SamplingParams] | None = field(default=None, hash=False)

    def put_to(self, teacher: str) -> Request:
        """The same question to one teacher of the group."""
        params = self.params if self.each is None else self.each.get(teacher, self.params)
        return replace(self, teacher=teacher, params=params, each=None)


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens. `cached` and `cache_write` are parts of `input`, `reasoning` is a part of `output`."""

    input: int = 0
    output: int = 0
    cached: int = 0
    cache_write: int = 0
    reasoning: int = 0

    @property
    def total(self) -> int:
        return self.input + self.output


@dataclass(frozen=True, slots=True)
class Answer:
    """A stored answer, read. `key` finds its raw bytes in the store; `reused` says this run did not pay for it."""

    text: str
    reasoning: str | None
    finish: Finish
    usage: Usage
    cost: Decimal
    key: str
    teacher: str = ""
    model: str = ""
    reused: bool = False
    logprobs: tuple[TokenLogprob, ...] | None = None
    """Of the tokens that spell `text`, where they were asked for and given."""


@dataclass(frozen=True, slots=True)
class Reply:
    """What came over the wire, unread: any status, the raw body, header names in lower case."""

    status: int
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict[str, str], hash=False)


@dataclass(frozen=True, slots=True)
class Reading:
    """What a body says. Reasoning never stands in `text`."""

    text: str
    reasoning: str | None
    finish: Finish
    usage: Usage
    model: str
    logprobs: tuple[TokenLogprob, ...] | None = None


class Teacher(Protocol):
    """One model behind one endpoint."""

    provider: str
    model: str

    def wire(self, request: Request, sample: int) -> dict[str, Any]:
        """The final request body, as JSON values: what is hashed into the answer's key. No key, host or timeout.
        `sample` enters it only where the provider's answers are a function of a seed of ours (local, simulated)."""
        ...

    async def send(self, wire: Mapping[str, Any], *, timeout: float) -> Reply:  # noqa: ASYNC109  # each teacher ends it by itself
        """Send once. Any HTTP status is a `Reply`.

        Raises:
            TeacherError: no whole reply came (TIMEOUT, CONNECTION, CRASHED).
        """
        ...

    def failure(self, reply: Reply) -> TeacherError | None:
        """Why the reply is not an answer, or None. Never raises, whatever the body holds."""
        ...

    def read(self, body: bytes) -> Reading:
        """Read the body of an answer.

        Raises:
            AnswerError: UNREADABLE (lone surrogates). Every other oddity is a `finish`.
        """
        ...

    async def start(self) -> None:
        """Open what is needed: a connection pool, a local engine."""
        ...

    async def close(self) -> None:
        """Close it on every path; safe to call twice."""
        ...
