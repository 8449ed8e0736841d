"""`kill -9` at random moments loses nothing, pays nothing twice, and changes no byte."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.support.loopback import Loopback
from tests.support.storm import Storm, files_of, finish, storm
from tests.support.workspaces import probe

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
