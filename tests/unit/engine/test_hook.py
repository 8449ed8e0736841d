"""Whoever asked to be told is told once, without secrets, and cannot harm the run."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import pytest

from distill.engine import generate, open_run
from distill.engine.check import check
from distill.engine.hook import Hook
from distill.errors import InputError, RunError
from distill.recipe import HookConfig, load_recipe
from tests.support.commands import distill, ended, started
from tests.support.loopback import Loopback
from tests.support.workspaces import probe, rehearsal

SUMMARY = {"state": "complete", "kept": 3, "reason": "3 rows kept"}


def note(folder: Path, code: str = "") -> list[str]:
    """A command that writes down what it was told and its environment; then does `code`."""
    script = folder / "note.py"
    script.write_text(
        "import json, os, sys, time\n"
        "open('told.jsonl', 'a').write(sys.stdin.read() + '\\n')\n"
        f"open('environment.json', 'w').write(json.dumps(dict(os.environ)))\n{code}\n"
    )
    return [sys.executable, "note.py"]


def told(folder: Path) -> list[dict[str, Any]]:
    path = folder / "told.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def alive(pid: int) -> bool:
    """Whether a process runs; one that has ended may wait to be collected."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def written(folder: Path) -> str:
    """All JSON that a run wrote."""
    return "".join(path.read_text() for path in folder.glob("*.json*"))


@contextlib.asynccontextmanager
async def receiver(status: str = "200 OK") -> AsyncGenerator[tuple[str, list[bytes]]]:
    """A webhook's other end: its address, and what it received."""
    received: list[bytes] = []

    async def reply(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0])
        received.append(head + await reader.readexactly(length))
        writer.write(f"HTTP/1.1 {status}\r\ncontent-length: 0\r\nlocation: http://127.0.0.1:1/x\r\n\r\n".encode())
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(reply, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/services/T00/secret-part", received


async def test_a_finished_run_tells_command_and_webhook_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with receiver() as (url, received), Loopback() as server:
        monkeypatch.setenv("HOOK_URL", url)
        hook = {"command": note(tmp_path), "webhook": "${HOOK_URL}"}
        probe(tmp_path, server.base_url, target=20, hook=hook)
        first = await distill("--debug", "generate", "probe.yaml", "--json", cwd=tmp_path)
        again = await distill("generate", "probe.yaml", "--json", cwd=tmp_path)
    assert (first.code, again.code, again.json["already_complete"]) == (0, 0, True)
    [summary] = told(tmp_path)
    assert (summary["event"], summary["kept"], summary["exit_code"]) == ("finished", 20, 0)
    assert summary["run"] == first.json["run"]
    assert summary["text"].startswith("distill probe: complete, 20 rows kept, $")
    assert (Path(summary["run"]) / "report.html").is_file()
    [request] = received
    assert request.startswith(b"POST /services/T00/secret-part ")
    assert json.loads(request.partition(b"\r\n\r\n")[2]) == summary
    environment = json.loads((tmp_path / "environment.json").read_text())
    assert "TEACHER_KEY" not in environment
    assert "PATH" in environment
    assert "secret-part" not in first.out + first.err + written(Path(summary["run"]))


async def test_sigterm_is_told_as_stopped(tmp_path: Path) -> None:
    async with Loopback(latency=0.5) as server:
        probe(tmp_path, server.base_url, target=400, hook={"command": note(tmp_path, "sys.exit('no mail today')")})
        process = await started("generate", "probe.yaml", "--json", cwd=tmp_path)
        async with asyncio.timeout(100):
            while server.answered < 16:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        process.send_signal(signal.SIGTERM)
        said = await ended(process)
    assert said.code == 3  # whatever the hook says
    [summary] = told(tmp_path)
    assert (summary["event"], summary["state"], summary["exit_code"]) == ("stopped", "stopped", 3)
    assert summary["kept"] == said.json["kept"] >= 16
    assert "warning: hook" in said.err
    assert "exit code 1: no mail today" in said.err


async def test_a_failed_run_is_told(tmp_path: Path) -> None:
    async with Loopback(faults={"401": 1.0}) as server:
        probe(tmp_path, server.base_url, target=20)
        said = await distill("generate", "probe.yaml", "--hook", " ".join(note(tmp_path)), cwd=tmp_path)
    assert said.code == 1
    [summary] = told(tmp_path)
    assert (summary["event"], summary["state"], summary["exit_code"]) == ("failed", "failed", 1)
    assert "key" in summary["reason"].lower() or "401" in summary["reason"]


async def test_a_run_from_python_tells_too(tmp_path: Path) -> None:
    path = rehearsal(tmp_path, hook={"command": note(tmp_path), "on": ["finished"]})
    rows = [row async for row in generate(path)]
    assert [summary["kept"] for summary in told(tmp_path)] == [len(rows)] == [12]


@pytest.mark.parametrize(
    ("code", "says"),
    [
        ("sys.stderr.write('no space left'); sys.exit(7)", "exit code 7: no space left"),
        ("os.kill(os.getpid(), 9)", "exit code -9"),
        ("sys.stderr.write('x' * 10_000_000)", ""),
    ],
)
async def test_a_hook_that_fails_is_a_warning(code: str, says: str, tmp_path: Path) -> None:
    hook = Hook(HookConfig(command=tuple(note(tmp_path, code))), folder=tmp_path)
    warnings = await hook.tell("finished", SUMMARY)
    assert [says in warning for warning in warnings] == [True] * bool(says)
    assert len(told(tmp_path)) == 1


async def test_a_hook_that_hangs_is_ended_with_its_children(tmp_path: Path) -> None:
    hook = Hook(HookConfig(command=("sh", "-c", "sleep 600 & echo $! > pid; wait")), folder=tmp_path)
    [warning] = await hook.tell("finished", SUMMARY, limit=3.0)
    assert "not done after 3 s" in warning
    child = int((tmp_path / "pid").read_text())
    async with asyncio.timeout(10):
        while alive(child):  # noqa: ASYNC110
            await asyncio.sleep(0.05)


@pytest.mark.parametrize("status", ["500 Oh", "302 Found", "404 Not Found"])
async def test_a_webhook_that_refuses_is_a_warning_without_its_address(status: str, tmp_path: Path) -> None:
    async with receiver(status) as (url, received):
        hook = Hook(HookConfig.model_validate({"webhook": url}), folder=tmp_path)
        assert await hook.tell("stopped", SUMMARY) == [f"webhook: answered {status[:3]}"]
    assert len(received) == 1
    [warning] = await hook.tell("stopped", SUMMARY)  # nobody is there any more
    assert "Connect" in warning
    assert "secret-part" not in warning


async def test_secrets_are_masked_and_other_events_are_not_told(tmp_path: Path) -> None:
    config = HookConfig.model_validate({"command": note(tmp_path), "on": ["failed"]})
    hook = Hook(config, folder=tmp_path, secrets=("sk-canary-1",))
    os.environ["CANARY"] = "sk-canary-1"
    try:
        assert await hook.tell("finished", SUMMARY) == []
        assert told(tmp_path) == []
        await hook.tell("failed", {**SUMMARY, "reason": "the key sk-canary-1 was refused"})
    finally:
        del os.environ["CANARY"]
    assert told(tmp_path)[0]["reason"] == "the key *** was refused"
    assert "CANARY" not in json.loads((tmp_path / "environment.json").read_text())


async def test_a_program_that_is_not_there_is_a_warning(tmp_path: Path) -> None:
    hook = Hook(HookConfig(command=("no-such-program-of-ours",)), folder=tmp_path)
    assert await hook.tell("finished", SUMMARY) == ["hook no-such-program-of-ours: No such file or directory"]


@pytest.mark.parametrize(
    ("hook", "says"),
    [
        ({}, "say `command` or `webhook`"),
        ({"webhook": "${NOT_SET_ANYWHERE}"}, "NOT_SET_ANYWHERE is not set"),
        ({"webhook": "ftp://example.org/x"}, "not an address"),
        ({"command": ["true"], "on": ["sometimes"]}, "sometimes|finished"),
        ({"command": ["echo", "${HOME}"]}, "stands only in api_key"),
    ],
)
def test_what_cannot_work_is_said_before_anything_is_asked(hook: dict[str, Any], says: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=says):
        open_run(rehearsal(tmp_path, hook=hook))


def test_a_hook_decides_no_row_and_is_written_nowhere(tmp_path: Path) -> None:
    plain = load_recipe(rehearsal(tmp_path / "a"))
    hooked = load_recipe(rehearsal(tmp_path / "b", hook={"webhook": "http://127.0.0.1:1/secret-part"}))
    assert plain.digest == hooked.digest
    assert "hook" not in hooked.public()


async def test_what_failed_before_it_began_is_told_with_its_reason(tmp_path: Path) -> None:
    """Another process has the run."""
    run = open_run(rehearsal(tmp_path, hook={"command": note(tmp_path)}))
    with run.directory.lock(), pytest.raises(RunError, match="is being written by") as caught:
        await run.execute()
    assert await run.notify(caught.value) == []
    assert (told(tmp_path)[0]["event"], told(tmp_path)[0]["exit_code"]) == ("failed", 1)
    assert "is being written by" in told(tmp_path)[0]["reason"]


def test_check_says_what_the_hook_will_do(tmp_path: Path) -> None:
    hook = {"command": ["notify.sh", "--loud"], "webhook": "http://127.0.0.1:1/secret-part", "on": ["finished"]}
    findings = check(load_recipe(rehearsal(tmp_path, hook=hook)))
    said = [(finding.level, finding.detail) for finding in findings if finding.what == "hook"]
    assert said[0] == ("ok", "runs notify.sh and posts to the webhook when the run is finished")
    assert [level for level, _ in said] == ["ok", "warn"]
    assert "secret-part" not in str(findings)
