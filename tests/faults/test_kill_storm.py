"""`kill -9` at random moments loses nothing, pays nothing twice, and changes no byte."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.support.loopback import Loopback
from tests.support.storm import Storm, files_of, finish, storm
from tests.support.workspaces import group_probe, probe

CONCURRENCY = 16  # of the probe's teacher
FILTERS = [{"kind": "exact"}, {"kind": "minhash", "threshold": 0.7}]


async def _storm(tmp_path: Path, kills: int, target: int, latency: float) -> Storm:
    async with Loopback(latency=latency, jitter=0.5) as server:
        calm, stormy = tmp_path / "calm", tmp_path / "storm"
        for folder in (calm, stormy):
            probe(folder, server.base_url, target=target, filters=FILTERS)
        await asyncio.to_thread(finish, calm)
        server.reset()
        reference = files_of(calm)
        seen = await asyncio.to_thread(
            lambda: storm(stormy, kills=kills, seed=3, stats=server.stats, reference=reference)
        )
    assert seen.lost == 0
    assert seen.sent_twice <= seen.under_way
    assert seen.worst <= 2 * CONCURRENCY
    assert seen.equal
    return seen


async def test_two_kills(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEACHER_KEY", "k" * 12)
    await _storm(tmp_path, 2, 250, 0.05)


@pytest.mark.heavy
async def test_twenty_kills(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEACHER_KEY", "k" * 12)
    seen = await _storm(tmp_path, 20, 2500, 0.1)
    assert seen.under_way > 20  # the kills did hit the run at work


async def _group_storm(tmp_path: Path, kills: int, target: int, *, down: bool) -> None:
    """Two servers share the slots; where one is down, the other answers in its place. The run that was never killed
    meets the same weather."""
    async with Loopback(latency=0.05, jitter=0.5) as a, Loopback(latency=0.05, jitter=0.5) as b:
        calm, stormy = tmp_path / "calm", tmp_path / "storm"
        for folder in (calm, stormy):
            group_probe(folder, a=a, b=b, target=target, filters=FILTERS)
        if down:
            await b.stop()
        await asyncio.to_thread(finish, calm)
        for server in (a, b):
            server.reset()
        reference = files_of(calm)

        def stats() -> dict[str, int]:
            both = a.stats(), b.stats()
            return {name: sum(each[name] for each in both) for name in ("requests", "distinct")}

        seen = await asyncio.to_thread(lambda: storm(stormy, kills=kills, seed=5, stats=stats, reference=reference))
        assert (b.requests == 0) == down
    assert seen.lost == 0
    assert seen.sent_twice <= seen.under_way
    assert seen.equal


async def test_a_group_of_teachers_survives_kills(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEACHER_KEY", "k" * 12)
    await _group_storm(tmp_path, 1, 100, down=True)


@pytest.mark.heavy
@pytest.mark.parametrize("down", [False, True])
async def test_a_group_of_teachers_survives_many_kills(
    down: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEACHER_KEY", "k" * 12)
    await _group_storm(tmp_path, 6, 1000, down=down)
