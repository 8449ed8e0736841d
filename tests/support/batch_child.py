"""Sessions that are killed: each is a process of its own, forked from one that has imported everything.

    with Sessions() as sessions:
        ended = sessions.run(folder=…, provider="openai", url=…, questions=20, kill_at="creating", nth=1)

A session asks `questions` questions through a real gateway, and kills itself with SIGKILL when it comes to the `nth`
step of that name (`kill_at="creating+"`: a moment later, while the reply to the creation is on its way). The answer is
the signal that ended it, or 0.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from types import TracebackType
from typing import Any

from distill.errors import TeacherError
from distill.gateway import Batching, BatchLedger, Gateway, SqliteStore
from distill.recipe import Budget, TeacherConfig
from distill.teachers import Message, Request, SamplingParams, make_batches, make_teacher

__all__ = ["STEPS", "Sessions"]

STEPS = (
    "gathered",
    "intended",
    "uploaded",
    "creating",
    "creating+",
    "created",
    "submitted",
    "polled",
    "ended",
    "downloaded",
    "storing",
    "stored",
    "all stored",
    "closed",
)
"""Every named step of a batch between intent and closed."""

_LATER_S = 0.05
_SETTLE_S = 2.0


class Sessions:
    """The process that forks them."""

    def __enter__(self) -> Sessions:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.batch_child"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parents[2],
        )
        return self

    def run(self, **session: Any) -> int:
        """Run one session to its end; the number of the signal that ended it, 0 for none.

        Raises:
            RuntimeError: it failed.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({**session, "folder": str(session["folder"])}) + "\n")
        self._process.stdin.flush()
        code = int(self._process.stdout.readline())
        if code > 0:
            raise RuntimeError(f"a session failed with exit code {code}; its output stands above")
        return -code

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(60)


def _serve() -> None:
    _warm()
    for line in sys.stdin:
        session = json.loads(line)
        child = os.fork()
        if child == 0:
            code = 1
            try:
                asyncio.run(_session(session))
                code = 0
            finally:
                sys.stderr.flush()
                os._exit(code)
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


def _warm() -> None:
    """Import what sessions would import."""
    import anthropic
    import openai

    client, other = openai.AsyncOpenAI(api_key="k"), anthropic.AsyncAnthropic(api_key="k")
    for part in (client.batches, client.files, client.chat, other.messages.batches):
        assert part is not None

    import distill.teachers.batch_anthropic
    import distill.teachers.batch_openai  # noqa: F401


async def _session(given: dict[str, Any]) -> None:
    folder, left = Path(given["folder"]), given.get("nth", 1)
    wanted, _, later = given.get("kill_at", "").partition("+")
    later = given.get("kill_at", "").endswith("+")

    def at(step: str) -> None:
        nonlocal left
        if step != wanted:
            return
        left -= 1
        if left == 0 and later:
            threading.Timer(_LATER_S, lambda: os.kill(os.getpid(), signal.SIGKILL)).start()
        elif left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    config = TeacherConfig.model_validate(
        {
            "provider": given["provider"],
            "model": "mock",
            "base_url": given["url"],
            "api_key": "key-of-a-test-0001",
            "mode": "batch",
            "price": {"input": 2, "output": 4},
            "batch": {"poll_s": 0.1, "max_requests": given.get("max_requests", 50_000)},
            "max_attempts": 50,
        }
    )
    with (
        SqliteStore.open(folder / "answers.sqlite") as store,
        BatchLedger.open(folder / "batches.sqlite") as ledger,
    ):
        batching = Batching(
            ledger,
            {"main": make_batches("main", config)},
            at=at,
            settle_s=_SETTLE_S,
            tick_s=0.02,
            first_poll_s=0.05,
        )
        teachers = {"main": make_teacher("main", config)}
        budget = Budget.model_validate({"usd": 100})
        gateway = Gateway(teachers, {"main": config}, store, run="r", budget=budget, batching=batching)
        async with gateway, asyncio.TaskGroup() as group:
            for n in range(given["questions"]):
                request = Request("main", (Message("user", f"question {n}"),), SamplingParams(max_tokens=64))
                group.create_task(_asked(gateway, request))


async def _asked(gateway: Gateway, request: Request) -> None:
    with contextlib.suppress(TeacherError):  # a refusal is an answer too
        await gateway.ask(request)


if __name__ == "__main__":
    _serve()
