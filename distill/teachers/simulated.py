"""A teacher that makes its answers up: the rehearsal of a whole run without a network, a key or a model.

Answers are a pure function of the wire, which holds the sample number and the seed: the same recipe gives the same
dataset at every run. They have the shape of a chat completion, so that reading them is the same code as for the real
ones; every body says `simulated`, and so does the model's name. Faults of the transport (429, 500, timeouts) are drawn
anew for each attempt, so that retries get through, and depend on nothing but the request and how often it was sent.
"""

from __future__ import annotations

import asyncio
import hashlib
import math
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import orjson

from distill.errors import FailureClass, TeacherError
from distill.io import canonical
from distill.recipe import TeacherConfig
from distill.teachers.base import Reading, Reply, Request
from distill.teachers.failures import failure_of
from distill.teachers.invent import Dice, sentences, value_for
from distill.teachers.reading import is_chat, read_chat

__all__ = ["SimulatedTeacher"]

_POOL = 8
_REFUSAL = "I am sorry, but I cannot help with that."
_SHAPES = ("prefusal", "plength", "pduplicate")


class SimulatedTeacher:
    """See the module. `clock` counts seconds, `sleep` waits them."""

    provider: str = "simulated"

    def __init__(
        self,
        config: TeacherConfig,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self.model = config.model if "simulated" in config.model else f"simulated/{config.model}"
        self._how = config.simulate
        self._clock, self._sleep = clock, sleep
        self._faulty = bool(self._how.p429 or self._how.p500 or self._how.ptimeout)
        self._attempts: dict[bytes, int] = {}
        self._tokens: float | None = None
        self._filled = 0.0

    def wire(self, request: Request, sample: int) -> dict[str, Any]:
        """Everything that the answer depends on, and nothing else."""
        how = {"seed": self._how.seed, **{name: p for name in _SHAPES if (p := getattr(self._how, name))}}
        wire: dict[str, Any] = {
            "model": self.model,
            "messages": [{"role": message.role, "content": message.content} for message in request.messages],
            "max_tokens": request.params.max_tokens,
            "sample": sample,
            "simulate": how,
        }
        if request.params.temperature is not None:
            wire["temperature"] = request.params.temperature
        if request.params.seed is not None:
            wire["seed"] = request.params.seed
        if request.schema is not None:
            wire["schema"] = dict(request.schema)
        return wire

    async def send(self, wire: Mapping[str, Any], *, timeout: float) -> Reply:  # noqa: ASYNC109  # the contract
        """Answer after the latency.

        Raises:
            TeacherError: TIMEOUT, for the share `ptimeout` and where the latency is longer than `timeout`.
        """
        how = self._how
        digest = hashlib.blake2b(canonical(dict(wire)), digest_size=8).digest()
        if how.requests_per_minute is not None:
            wait = self._over_limit(how.requests_per_minute / 60)
            if wait is not None:
                return _refusal(429, "rate_limit_exceeded", {"retry-after": f"{math.ceil(wait * 1000) / 1000:g}"})
        dice = Dice(int.from_bytes(digest))
        status = self._fault(digest) if self._faulty else 200
        if status == 429:
            return _refusal(429, "rate_limit_exceeded", {"retry-after": "1"})
        latency = how.latency_s * (1 + how.jitter * (2 * dice.share() - 1)) if how.latency_s else 0.0
        if status == 408 or latency > timeout:
            await self._sleep(timeout)
            raise TeacherError(FailureClass.TIMEOUT, f"no whole reply within {timeout:g} s (simulated)")
        await self._sleep(latency)
        if status == 500:
            return _refusal(500, "server_error", {})
        return Reply(200, self._answer(wire, digest), {"content-type": "application/json"})

    def failure(self, reply: Reply) -> TeacherError | None:
        """Why the reply is not an answer, or None."""
        return failure_of(reply, is_answer=is_chat)

    def read(self, body: bytes) -> Reading:
        """Read an answer; see `distill.teachers.reading`."""
        return read_chat(body, self.model)

    async def start(self) -> None:
        """Nothing to open."""

    async def close(self) -> None:
        """Nothing to close."""

    # -- what comes back -------------------------------------------------------------------------------------------

    def _answer(self, wire: Mapping[str, Any], digest: bytes) -> bytes:
        how: Mapping[str, Any] = wire.get("simulate", {})
        seed: int = how.get("seed", 0)
        dice = Dice(int.from_bytes(digest) ^ (seed * 0x9E3779B97F4A7C15))
        draw, pooled = dice.share(), dice.below(_POOL)
        left = draw - how.get("prefusal", 0.0)
        refused = left < 0
        cut = not refused and (left := left - how.get("plength", 0.0)) < 0
        if not (refused or cut) and left - how.get("pduplicate", 0.0) < 0:
            dice = Dice(seed + pooled)  # a text that several requests get
        most = int(wire.get("max_tokens", 1024))
        if refused:
            text = None
        elif "schema" in wire:
            text = orjson.dumps(value_for(wire["schema"], dice)).decode()
        else:
            text = sentences(dice, int(most * 0.6))
        if text is not None and cut:
            text = text[: max(1, len(text) // 2)]
        given = sum(len(message["content"]) for message in wire["messages"]) // 4 + 4 * len(wire["messages"])
        made = most if cut else max(1, len(text or _REFUSAL) // 4)
        return orjson.dumps(
            {
                "id": f"simulated-{digest.hex()}",
                "object": "chat.completion",
                "model": self.model,
                "system_fingerprint": "simulated",
                "choices": [
                    {
                        "index": 0,
                        "message": {"role": "assistant", "content": text, "refusal": _REFUSAL if refused else None},
                        "finish_reason": "length" if cut else "stop",
                    }
                ],
                "usage": {"prompt_tokens": given, "completion_tokens": made, "total_tokens": given + made},
            }
        )

    def _fault(self, digest: bytes) -> int:
        """The status of this attempt; 408 stands for no answer at all."""
        nth = self._attempts.get(digest, 0)
        how = self._how
        draw = Dice(int.from_bytes(digest) + 0x632BE59BD9B4E019 * (nth + 1) + how.seed).share()
        for share, status in ((how.p429, 429), (how.p500, 500), (how.ptimeout, 408)):
            draw -= share
            if draw < 0:
                self._attempts[digest] = nth + 1
                return status
        self._attempts.pop(digest, None)
        return 200

    def _over_limit(self, rate: float) -> float | None:
        """Seconds until a request is let through, when this one is not: a bucket of one second's worth."""
        now, most = self._clock(), max(1.0, rate)
        have = most if self._tokens is None else min(most, self._tokens + (now - self._filled) * rate)
        self._filled = now
        self._tokens = have - 1 if have >= 1 else have
        return None if have >= 1 else (1 - have) / rate


def _refusal(status: int, code: str, headers: dict[str, str]) -> Reply:
    body = orjson.dumps({"error": {"message": f"simulated {code}", "type": code, "code": code}})
    return Reply(status, body, {"content-type": "application/json", **headers})
