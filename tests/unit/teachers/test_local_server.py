"""The server process: ready, used, crashed, restarted, and gone on every path. A stand-in plays llama-server."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import orjson
import pytest

from distill.errors import FailureClass, InputError, RunError, TeacherError
from distill.recipe import TeacherConfig
from distill.teachers import Message, Request
from distill.teachers.local.engine_llama import LlamaCppEngine
from distill.teachers.local.server import LlamaServer, find_servers
from distill.teachers.local.teacher import LocalTeacher

FAKE = [sys.executable, "-S", str(Path(__file__).parents[2] / "support" / "fake_llama.py")]
CONFIG = TeacherConfig(provider="local", model="qwen2.5-coder-1.5b-instruct", engine="llama.cpp", max_concurrency=4)


def child_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/task/{pid}/children").read_text("ascii").split()[0])


def gone(pid: int, within_s: float = 5.0) -> bool:
    end = time.monotonic() + within_s
    while time.monotonic() < end:
        try:
            if Path(f"/proc/{pid}/stat").read_text("ascii").rsplit(")", 1)[1].split()[0] == "Z":
                return True
        except OSError:
            return True
        time.sleep(0.02)
    return False


def make_engine(restarts: int = 3) -> LlamaCppEngine:
    return LlamaCppEngine(CONFIG, Path("weights.gguf"), context=512, restarts=restarts, commands=[FAKE])


def ask(text: str, sample: int = 0) -> dict[str, object]:
    return LocalTeacher(CONFIG).wire(Request("t", (Message("user", text),)), sample)


async def test_it_answers_and_close_ends_every_process() -> None:
    engine = make_engine()
    await engine.start()
    leash = engine.server.pid
    assert leash is not None
    server = child_of(leash)
    reply = await engine.send(ask("hello"), timeout=10)
    said = orjson.loads(orjson.loads(reply.body)["choices"][0]["message"]["content"])
    assert reply.status == 200
    assert said["text"] == "hello"
    assert {"seed", "top_k", "min_p", "temperature", "top_p"} <= set(said["fields"])
    await engine.close()
    await engine.close()
    assert gone(leash)
    assert gone(server)


async def test_a_crash_fails_what_was_in_flight_and_the_next_request_restarts_it() -> None:
    engine = make_engine(restarts=1)
    await engine.start()
    try:
        results = await asyncio.gather(
            *(engine.send(ask(text), timeout=20) for text in ("slow", "slow", "die")), return_exceptions=True
        )
        for result in results:
            assert isinstance(result, TeacherError)
            assert result.failure is FailureClass.CRASHED
            assert "signal 9" in str(result)
            assert "tensor is on fire" in str(result)
        assert (await engine.send(ask("again"), timeout=20)).status == 200
        with pytest.raises(TeacherError):
            await engine.send(ask("die"), timeout=20)
        with pytest.raises(TeacherError, match="keeps crashing") as last:
            await engine.send(ask("again"), timeout=20)
        assert last.value.failure is FailureClass.CRASHED
    finally:
        await engine.close()


async def test_a_timeout_is_a_timeout() -> None:
    engine = make_engine()
    await engine.start()
    try:
        with pytest.raises(TeacherError) as caught:
            await engine.send(ask("slow"), timeout=0.2)
        assert caught.value.failure is FailureClass.TIMEOUT
    finally:
        await engine.close()


async def test_a_model_that_cannot_be_loaded_is_said_in_the_servers_words() -> None:
    server = LlamaServer(["--refuse"], commands=[FAKE])
    with pytest.raises(RunError, match=r"status 3: error: this model cannot be loaded"):
        await server.start()
    assert not server.alive


async def test_the_next_server_is_tried_when_one_does_not_start() -> None:
    server = LlamaServer([], commands=[[sys.executable, "-c", "raise SystemExit(7)"], FAKE])
    await server.start()
    assert server.alive
    server.stop()


async def test_a_server_that_never_gets_ready_is_stopped() -> None:
    server = LlamaServer(["--ready-after", "60"], commands=[FAKE], ready_s=0.5)
    with pytest.raises(RunError, match="not ready within"):
        await server.start()
    assert not server.alive


HOLDER = """
import asyncio, sys
from distill.teachers.local.server import LlamaServer
async def main():
    server = LlamaServer([], commands=[sys.argv[1:]])
    await server.start()
    print(server.pid, flush=True)
    await asyncio.sleep(60)
asyncio.run(main())
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_the_server_ends_with_the_run_however_it_ends(number: signal.Signals) -> None:
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, *FAKE], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert holder.stdout is not None
    leash = int(holder.stdout.readline())
    server = child_of(leash)
    os.kill(holder.pid, number)
    holder.wait()
    holder.stdout.close()
    assert gone(leash)
    assert gone(server)


async def test_the_server_ends_with_its_leash() -> None:
    server = LlamaServer([], commands=[FAKE])
    await server.start()
    assert server.pid is not None
    child = child_of(server.pid)
    os.kill(server.pid, signal.SIGKILL)
    assert gone(child)
    server.stop()


def test_a_server_of_ones_own_must_be_executable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mine = tmp_path / "llama-server"
    mine.write_text("#!/bin/sh\n", "utf-8")
    monkeypatch.setenv("DISTILL_LLAMA_SERVER", str(mine))
    with pytest.raises(InputError, match="not an executable"):
        find_servers()
    mine.chmod(0o755)
    assert find_servers() == [[str(mine)]]
