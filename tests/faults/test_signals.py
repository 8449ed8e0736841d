"""Ctrl-C, SIGTERM and a second process: the run ends in order, says so, and goes on with the same command."""

from __future__ import annotations

import asyncio
import signal
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from distill.engine import open_run
from tests.support.commands import distill, ended, started
from tests.support.loopback import Loopback
from tests.support.sessions import faster, session
from tests.support.workspaces import probe

TARGET = 96
"""Three waves of 32, two seconds each."""


async def begun(server: Loopback, answered: int) -> None:
    """Wait until the server has answered so many requests and has others under way."""
    async with asyncio.timeout(40):
        while server.answered < answered or not server.in_flight:  # noqa: ASYNC110
            await asyncio.sleep(0.01)


def rows(run: Path) -> int:
    return pq.read_table(run / "rows.parquet").num_rows


@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGTERM])
async def test_the_first_signal_drains_and_the_same_command_continues(sign: signal.Signals, tmp_path: Path) -> None:
    from datasets import load_dataset

    async with Loopback(latency=2.0) as server:
        probe(tmp_path, server.base_url, target=TARGET, teacher={"max_concurrency": 32})
        process = await started("generate", "probe.yaml", "--json", cwd=tmp_path)
        await begun(server, 32)
        process.send_signal(sign)
        at = time.monotonic()
        said = await ended(process, limit=15)
        assert time.monotonic() - at < 10
        assert said.code == 3
        told = said.json
        assert (told["state"], told["planned"]) == ("stopped", told["kept"] + told["pending"])
        assert told["kept"] == server.answered == server.requests  # what was in flight was awaited
        assert 32 < told["kept"] < TARGET
        assert "stopping" in said.err
        run = Path(told["run"])
        assert rows(run) == told["kept"]
        data = load_dataset("json", data_files=str(run / "dataset/train.jsonl"), cache_dir=str(tmp_path / "cache"))
        assert data["train"].num_rows == told["dataset"]["rows"]["train"]

        server.latency = 0.0
        sent = server.requests
        done = await distill("generate", "probe.yaml", "--json", cwd=tmp_path)
        assert (done.code, done.json["kept"], done.json["resumed_answers"]) == (0, TARGET, told["kept"])
        assert server.requests - sent == TARGET - told["kept"]


async def test_the_second_signal_leaves_at_once_and_loses_nothing_that_was_stored(tmp_path: Path) -> None:
    async with Loopback(latency=2.0) as server:
        probe(tmp_path, server.base_url, target=TARGET, teacher={"max_concurrency": 32})
        process = await started("generate", "probe.yaml", "--json", cwd=tmp_path)
        await begun(server, 32)
        process.send_signal(signal.SIGINT)
        await asyncio.sleep(0.2)
        process.send_signal(signal.SIGINT)
        at = time.monotonic()
        said = await ended(process, limit=15)
        assert time.monotonic() - at < 1.0
        assert said.code == 130
        server.latency = 0.0
        done = await distill("generate", "probe.yaml", "--json", cwd=tmp_path)
        assert (done.code, done.json["kept"]) == (0, TARGET)
        assert done.json["resumed_answers"] >= 32


async def test_what_hangs_is_not_awaited_for_long(tmp_path: Path) -> None:
    """Ten seconds; here on a clock that runs ten times as fast."""
    async with Loopback(match={"number 40.": "timeout"}) as server:
        going = faster(open_run(probe(tmp_path, server.base_url, target=60)), 10)
        async with asyncio.TaskGroup() as group:
            task = group.create_task(going.execute())
            await begun(server, 59)
            going.drain()
            at = time.monotonic()
            summary = await task
        assert 0.9 < time.monotonic() - at < 4
    assert (summary.state, summary.exit_code) == ("stopped", 3)
    assert (summary.counts["kept"], summary.counts["pending"]) == (59, 1)
    assert summary.unknown_cost_usd > 0


async def test_a_signal_during_a_replay_keeps_the_rows_that_were_there(tmp_path: Path) -> None:
    """The second session is stopped before it has replayed what the first one had."""
    async with Loopback() as server:
        first = await session(probe(tmp_path, server.base_url, target=1000, budget={"usd": 0.03}))
        kept = first.told["kept"]
        assert (first.code, kept > 600) == (3, True)
        before = (first.path / "rows.parquet").read_bytes()
        recipe = probe(tmp_path, server.base_url, target=1000)
        again = open_run(recipe)

        async def stop(_: object) -> None:
            again.drain()

        summary = await again.execute(stop)
        assert (summary.state, summary.counts["kept"]) == ("stopped", kept)
        assert (first.path / "rows.parquet").read_bytes() == before
        done = await session(recipe)
        assert (done.code, done.told["kept"], rows(first.path)) == (0, 1000, 1000)


async def test_a_second_process_is_told_and_the_first_goes_on(tmp_path: Path) -> None:
    async with Loopback(latency=3.0) as server:
        probe(tmp_path, server.base_url, target=64)
        first = await started("generate", "probe.yaml", "--json", "--run", "out", cwd=tmp_path)
        await begun(server, 16)
        second = await distill("generate", "probe.yaml", "--json", "--run", "out", cwd=tmp_path)
        assert second.code == 1
        assert second.json["error"] == "RunLocked"
        assert f"process {first.pid}" in second.json["message"]
        assert "--run" in second.json["hint"]
        done = await ended(first)
        assert (done.code, done.json["kept"], server.requests) == (0, 64, 64)


@pytest.mark.heavy
async def test_two_runs_at_the_same_time_share_one_store(tmp_path: Path) -> None:
    async with Loopback(latency=0.05) as server:
        probe(tmp_path, server.base_url, target=200)
        runs = [await started("generate", "probe.yaml", "--json", "--run", name, cwd=tmp_path) for name in ("a", "b")]
        said = [await ended(process) for process in runs]
        assert [(one.code, one.json["kept"]) for one in said] == [(0, 200), (0, 200)]
        # The first answer stored wins, whoever paid: both datasets are the same.
        assert (tmp_path / "a/rows.parquet").read_bytes() == (tmp_path / "b/rows.parquet").read_bytes()
