"""`kill -9` at a random moment: every answer that somebody has seen is in the store afterwards."""

from __future__ import annotations

import asyncio
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from distill.gateway import SqliteStore
from distill.gateway.budget import Amount

UNIT = Path(__file__).parent.parent / "unit" / "gateway"

CHILD = """
import asyncio, sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from gateway_doubles import Probe, ask_for, body
from distill.gateway import Gateway, SqliteStore
from distill.recipe import Budget, TeacherConfig
from distill.teachers import Reply

async def main():
    async def behave(probe, n):
        await asyncio.sleep(0.002)
        return Reply(200, body("x" * 300))
    config = TeacherConfig.model_validate({"model": "m", "price": {"input": 1, "output": 1}, "max_concurrency": 32})
    store = SqliteStore.open(Path(sys.argv[1]))
    numbers = iter(range(1_000_000))
    async with Gateway({"main": Probe(behave)}, {"main": config}, store, run="r",
                       budget=Budget(tokens=100_000_000)) as gateway:
        async def worker():
            for n in numbers:
                answer = await gateway.ask(ask_for(str(n)))
                sys.stdout.write(answer.key + "\\n")
                sys.stdout.flush()
        async with asyncio.TaskGroup() as group:
            for _ in range(40):
                group.create_task(worker())

asyncio.run(main())
"""


def kill_once(path: Path, seconds: float) -> list[str]:
    """Run the child on the store, kill it some time after its first answer; the keys it showed."""
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, str(path), str(UNIT)], stdout=subprocess.PIPE, text=True, cwd=path.parent
    )
    assert child.stdout is not None
    lines = [child.stdout.readline()]
    time.sleep(seconds)
    child.send_signal(signal.SIGKILL)
    lines += child.stdout.read().splitlines()
    assert child.wait() == -signal.SIGKILL
    return [line.strip() for line in lines if len(line.strip()) == 32]


def check(path: Path, keys: list[str]) -> None:
    assert keys
    with SqliteStore.open(path) as store:
        assert all(store.get(key) is not None for key in keys)
        paid, _ = store.amounts("r")
        assert paid.tokens == 15 * store.stats().answers
        left = store.recover("r")
        assert left.tokens <= 3 * 32 * 400  # what was under way at the kill may have been billed


def test_nothing_that_was_seen_is_lost(tmp_path: Path) -> None:
    path = tmp_path / "answers.sqlite"
    keys = kill_once(path, 0.3)
    with SqliteStore.open(path) as store:
        assert store.recover("r") != Amount()
    check(path, keys)


@pytest.mark.heavy
def test_nothing_is_lost_over_many_kills(tmp_path: Path) -> None:
    rng = random.Random(7)
    path = tmp_path / "answers.sqlite"
    keys: list[str] = []
    for _ in range(15):
        keys += kill_once(path, rng.uniform(0, 0.5))
        check(path, keys)


async def test_two_processes_share_a_store(tmp_path: Path) -> None:
    path = tmp_path / "answers.sqlite"
    command = [sys.executable, "-c", CHILD, str(path), str(UNIT)]
    children = [await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE, cwd=tmp_path) for _ in range(2)]
    seen: set[str] = set()
    for child in children:
        assert child.stdout is not None
        seen |= {(await child.stdout.readline()).decode().strip() for _ in range(50)}
    for child in children:
        child.kill()
        await child.wait()
    with SqliteStore.open(path) as store:
        assert all(store.get(key) is not None for key in seen)
