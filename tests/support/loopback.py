"""A teacher on this machine: a real HTTP server that speaks OpenAI chat completions and Anthropic messages.

It is used by tests (in process) and by benchmarks (in its own process), so it is written on the bare asyncio protocol
and is never the bottleneck: several thousand requests a second on one core, with a thousand connections.

    async with Loopback(latency=0.05, script=["429", "ok"]) as server:
        ...  server.base_url, server.anthropic_url, server.stats()

    python -m tests.support.loopback --port 0 --latency 0.5 --rpm 600 --fault 429=0.02 --fault reset_mid_body=0.01

prints one JSON line with `port`, `base_url`, `anthropic_url`, and serves until it is ended.

    POST /v1/chat/completions   POST /v1/messages   GET /v1/models   GET /stats   POST /reset

Answers are a pure function of the request body: equal payloads get equal texts. When the body asks for a JSON schema,
the answer satisfies it. Faults are named in `tests/support/faults.py`.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import hashlib
import json
import math
import signal
import sys
import time
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tests.support.faults import ECHOES, FAULTS, PASSING, Dialect, Served, answer, error

__all__ = ["Billed", "Loopback", "main"]


@dataclass(slots=True)
class Billed:
    """One request whose answer is billed. Times are of the machine's monotonic clock, so that whoever kills the client
    can put them beside its own."""

    arrived: float
    fault: str | None
    replied: float | None = None
    """When the reply was handed to the network; None while it was not, for good where the client had hung up."""


class Loopback:
    """The server. Every argument may also be changed while it runs, as the attribute of the same name.

    Args:
        latency: seconds before an answer; error statuses come at once.
        jitter: share by which single latencies vary (deterministic per request).
        rpm: requests a minute that are let through; above it 429.
        burst: requests that may come at once under `rpm`; left out: one second's worth.
        retry_after: whether a 429 says when to come back.
        script: fault names (or "ok") for the first requests, in order of arrival.
        faults: fault name -> share of requests.
        match: text -> fault name, for every request whose body holds the text.
        steady: `faults` depend on the payload alone: what a client should try again passes the second time, everything
            else comes back the same, so that what was asked twice is answered as if it had been asked once.
        words: words of an answer, at most.
        record: keep the headers and body of every request in `received`.
    """

    def __init__(
        self,
        *,
        latency: float = 0.0,
        jitter: float = 0.0,
        rpm: float | None = None,
        burst: float | None = None,
        retry_after: bool = True,
        script: Sequence[str] = (),
        faults: Mapping[str, float] | None = None,
        match: Mapping[str, str] | None = None,
        steady: bool = False,
        words: int = 48,
        seed: int = 0,
        record: bool = False,
    ) -> None:
        self.latency, self.jitter, self.rpm, self.burst = latency, jitter, rpm, burst
        self.retry_after, self.words, self.seed, self.record = retry_after, words, seed, record
        self.script = deque(script)
        self.faults = dict(faults or {})
        self.steady = steady
        self.match = {text.encode(): name for text, name in (match or {}).items()}
        for name in (*self.script, *self.faults, *self.match.values()):
            if name != "ok" and name not in FAULTS and name not in ECHOES:
                raise ValueError(f"no such fault: {name}; there are: ok, {', '.join(FAULTS)}")
        self.received: list[tuple[dict[str, str], bytes]] = []
        self.connections: set[_Connection] = set()
        self.port = 0
        self._server: asyncio.Server | None = None
        self.reset()

    def reset(self) -> None:
        """Forget all counts."""
        self.requests = self.answered = self.opened = 0
        self.in_flight = self.max_in_flight = 0
        self.first_request_at: float | None = None
        self.hits: Counter[str] = Counter()
        self.seen: Counter[bytes] = Counter()
        self.paid: Counter[bytes] = Counter()
        self.billed: dict[bytes, Billed] = {}
        """The last billed request of each payload."""
        self.repeats: list[tuple[Billed, float]] = []
        """What was billed again: the request before, and when the payload came again."""
        self.received.clear()
        self._tokens: float | None = None
        self._filled = 0.0

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    @property
    def anthropic_url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def stats(self, *, payloads: bool = False, repeats: bool = False) -> dict[str, Any]:
        """Counts. `paid` is the number of answers that a provider would bill; `paid_twice` how many of them repeat
        an earlier payload; `payloads` gives both for each payload, by its digest. `repeats` gives for each answer that
        was paid again what became of the one before: its fault, when it arrived, when it was replied to (null: never)
        and when the payload came again."""
        figures: dict[str, Any] = {
            "requests": self.requests,
            "answered": self.answered,
            "paid": sum(self.paid.values()),
            "distinct": len(self.seen),
            "paid_twice": sum(count - 1 for count in self.paid.values()),
            "in_flight": self.in_flight,
            "max_in_flight": self.max_in_flight,
            "connections": self.opened,
            "faults": dict(self.hits),
            "first_request_at": self.first_request_at,
        }
        if payloads:
            figures["payloads"] = {
                digest.hex(): {"seen": count, "paid": self.paid[digest]} for digest, count in self.seen.items()
            }
        if repeats:
            figures["repeats"] = [
                {"fault": was.fault, "arrived": was.arrived, "replied": was.replied, "again": again}
                for was, again in self.repeats
            ]
        return figures

    async def start(self, port: int = 0, host: str = "127.0.0.1") -> Loopback:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: _Connection(self, loop), host, port, backlog=4096)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def stop(self) -> None:
        if self._server is None:
            return
        server, self._server = self._server, None
        server.close()
        for connection in tuple(self.connections):
            connection.abort()
        await server.wait_closed()

    async def __aenter__(self) -> Loopback:
        return await self.start()

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    # -- what a request gets ---------------------------------------------------------------------------------------

    def serve(self, dialect: Dialect, head: bytes, body: bytes, now: float) -> tuple[Served, Billed | None]:
        """Decide what happens to one request; called once for each, on arrival. What will be billed comes along, for
        the time of its reply to be noted."""
        digest = hashlib.blake2b(body, digest_size=8, key=b"%d" % self.seed).digest()
        nth = self.seen[digest]
        self.seen[digest] += 1
        self.requests += 1
        if self.first_request_at is None:
            self.first_request_at = time.time()
        if self.record:
            self.received.append((_headers(head), body))
        fault = self._fault(digest, nth, body)
        wait = self._over_limit(now) if fault is None else None
        if wait is not None:
            self.hits["limit"] += 1
            headers = {}
            if self.retry_after:
                headers = {"retry-after": str(math.ceil(wait)), "retry-after-ms": str(math.ceil(wait * 1000))}
            return error(dialect, 429, "rate_limit", "Rate limit reached", headers), None
        if fault is not None:
            self.hits[fault] += 1
            echo = ECHOES.get(fault)
            served = FAULTS[fault](dialect, body, digest, self.words) if echo is None else echo(dialect, _headers(head))
        else:
            served = answer(dialect, body, digest, self.words)
        if not served.paid:
            return served, None
        self.paid[digest] += 1
        billed = Billed(time.monotonic(), fault)
        before = self.billed.get(digest)
        if before is not None:
            self.repeats.append((before, billed.arrived))
        self.billed[digest] = billed
        return served, billed

    def delay(self, served: Served, body: bytes) -> float:
        """Seconds until the reply."""
        if not served.waits:
            return 0.0
        spread = 0.0
        if self.jitter:
            spread = self.jitter * (int.from_bytes(hashlib.blake2b(body, digest_size=4).digest()) / 2**31 - 1)
        return self.latency * (1 + spread) + served.extra

    def _fault(self, digest: bytes, nth: int, body: bytes) -> str | None:
        if self.script:
            name = self.script.popleft()
            return None if name == "ok" else name
        for text, name in self.match.items():
            if text in body:
                return name
        if self.faults:
            draw = hashlib.blake2b(digest + (0 if self.steady else nth).to_bytes(4), digest_size=8).digest()
            left = int.from_bytes(draw) / 2**64
            for name, share in self.faults.items():
                left -= share
                if left < 0:
                    return None if self.steady and nth and name in PASSING else name
        return None

    def _over_limit(self, now: float) -> float | None:
        """Seconds until a request is let through, when this one is not; a token bucket."""
        if self.rpm is None:
            return None
        rate = self.rpm / 60
        most = self.burst if self.burst is not None else max(1.0, rate)
        tokens = most if self._tokens is None else min(most, self._tokens + (now - self._filled) * rate)
        self._filled = now
        if tokens >= 1:
            self._tokens = tokens - 1
            return None
        self._tokens = tokens
        return (1 - tokens) / rate


class _Connection(asyncio.Protocol):
    """One connection: requests are answered one after the other."""

    __slots__ = ("_buffer", "_busy", "_loop", "_owner", "_timer", "_transport")

    def __init__(self, owner: Loopback, loop: asyncio.AbstractEventLoop) -> None:
        self._owner, self._loop = owner, loop
        self._buffer = b""
        self._busy = False
        self._timer: asyncio.TimerHandle | None = None
        self._transport: Any = None

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        self._owner.connections.add(self)
        self._owner.opened += 1

    def connection_lost(self, exc: Exception | None) -> None:
        self._owner.connections.discard(self)
        if self._timer is not None:
            self._timer.cancel()
        if self._busy:
            self._owner.in_flight -= 1
            self._busy = False

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def data_received(self, data: bytes) -> None:
        self._buffer = self._buffer + data if self._buffer else data
        if not self._busy:
            self._next()

    def _next(self) -> None:
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            return
        head = self._buffer[: end + 2]
        lower = head.lower()
        at = lower.find(b"\r\ncontent-length:")
        length = int(lower[at + 17 : lower.index(b"\r\n", at + 2)]) if at >= 0 else 0
        if len(self._buffer) < end + 4 + length:
            return
        body = self._buffer[end + 4 : end + 4 + length]
        self._buffer = self._buffer[end + 4 + length :]
        self._dispatch(head, body)

    def _dispatch(self, head: bytes, body: bytes) -> None:
        owner = self._owner
        method, target, _ = head[: head.index(b"\r\n")].split(b" ", 2)
        path = target.partition(b"?")[0]
        if method == b"POST" and path.endswith(b"/chat/completions"):
            dialect: Dialect = "openai"
        elif method == b"POST" and path.endswith(b"/messages"):
            dialect = "anthropic"
        else:
            self._transport.write(_other(owner, method, path, target))
            if self._buffer:
                self._next()
            return
        self._busy = True
        owner.in_flight += 1
        owner.max_in_flight = max(owner.max_in_flight, owner.in_flight)
        served, billed = owner.serve(dialect, head, body, self._loop.time())
        if served.data is None:  # never answers; ends when the client hangs up
            return
        delay = owner.delay(served, body)
        if delay > 0:
            self._timer = self._loop.call_later(delay, self._reply, served, billed)
        else:
            self._reply(served, billed)

    def _reply(self, served: Served, billed: Billed | None) -> None:
        self._timer = None
        self._owner.in_flight -= 1
        self._owner.answered += 1
        self._busy = False
        if self._transport.is_closing():
            return
        if billed is not None:
            billed.replied = time.monotonic()
        if served.data:
            self._transport.write(served.data)
        if served.then == "close":
            self._transport.close()
        elif served.then == "reset":
            # After the bytes have left: an abort in the same turn would take them along.
            self._loop.call_later(0.01, self._transport.abort)
        elif self._buffer:
            self._next()


def _other(owner: Loopback, method: bytes, path: bytes, target: bytes) -> bytes:
    if path == b"/stats":
        value: Any = owner.stats(payloads=b"payloads=1" in target, repeats=b"repeats=1" in target)
    elif path == b"/reset" and method == b"POST":
        owner.reset()
        value = {"ok": True}
    elif path.endswith(b"/models"):
        value = {"object": "list", "data": [{"id": "mock", "object": "model", "owned_by": "loopback"}]}
    else:
        return error("openai", 404, "not_found", f"no such route: {path.decode('latin-1')}", {}).data or b""
    body = json.dumps(value).encode()
    return b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body)


def _headers(head: bytes) -> dict[str, str]:
    lines = head.decode("latin-1").split("\r\n")[1:]
    pairs = (line.partition(":") for line in lines if line)
    return {name.strip().lower(): value.strip() for name, _, value in pairs}


def main(arguments: Sequence[str] | None = None) -> None:
    """Serve until ended."""
    parser = argparse.ArgumentParser(prog="python -m tests.support.loopback", description="A teacher on this machine.")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    parser.add_argument("--latency", type=float, default=0.0, help="seconds")
    parser.add_argument("--jitter", type=float, default=0.0, help="share of the latency")
    parser.add_argument("--rpm", type=float, help="requests a minute let through")
    parser.add_argument("--burst", type=float, help="requests at once under --rpm")
    parser.add_argument("--no-retry-after", action="store_true", help="a 429 does not say when to come back")
    parser.add_argument("--script", default="", help="comma-separated faults (or ok) for the first requests")
    parser.add_argument("--fault", action="append", default=[], metavar="NAME=SHARE", help="may be given several times")
    parser.add_argument("--match", action="append", default=[], metavar="TEXT=NAME", help="fault for bodies with TEXT")
    parser.add_argument("--steady", action="store_true", help="faults depend on the payload alone")
    parser.add_argument("--words", type=int, default=48, help="words of an answer")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args(arguments)
    server = Loopback(
        latency=given.latency,
        jitter=given.jitter,
        rpm=given.rpm,
        burst=given.burst,
        retry_after=not given.no_retry_after,
        script=[name for name in given.script.split(",") if name],
        faults={name: float(share) for name, _, share in (item.partition("=") for item in given.fault)},
        match={text: name for text, _, name in (item.rpartition("=") for item in given.match)},
        steady=given.steady,
        words=given.words,
        seed=given.seed,
    )

    async def serve() -> None:
        ended = asyncio.Event()
        for sign in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(sign, ended.set)
        await server.start(given.port, given.host)
        urls = {"port": server.port, "base_url": server.base_url, "anthropic_url": server.anthropic_url}
        print(json.dumps(urls), flush=True)
        await ended.wait()
        await server.stop()
        print(json.dumps(server.stats()), file=sys.stderr, flush=True)

    factory = None
    with contextlib.suppress(ImportError):
        import uvloop

        factory = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(serve())


if __name__ == "__main__":
    main()
