"""Shards that run at the same time: on one store of a server, and on one account's quota of the day."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from distill.engine import Summary, open_run
from distill.engine.shards import apart_from, payer_of
from distill.engine.unite import merge_shards
from distill.errors import DistillError
from distill.gateway import STORE_VARIABLE, open_store
from distill.planning import Shard
from tests.support.loopback import Loopback
from tests.support.workspaces import probe, rehearsal

OF = 3
TARGET = 60


def laid_out(folder: Path, url: str) -> Path:
    (folder / ".distill").mkdir(parents=True)
    return probe(folder, url, target=TARGET, filters=[{"kind": "exact", "fields": ["response"]}])


def written(run: Path) -> dict[str, bytes]:
    files = [*run.glob("*.parquet"), *run.glob("dataset/*")]
    return {str(file.relative_to(run)): file.read_bytes() for file in files}


def own_stores(folder: Path) -> list[Path]:
    return list(folder.glob("*/.distill/answers.sqlite"))


async def test_shards_on_one_server_lose_nothing_and_ask_nothing_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, postgres_server: Any
) -> None:
    monkeypatch.setenv(STORE_VARIABLE, postgres_server.fresh())
    async with Loopback(latency=0.01) as server:
        machines = [laid_out(tmp_path / f"machine{index}", server.base_url) for index in range(1, OF + 1)]
        shards = [open_run(path, shard=Shard(index, OF)) for index, path in enumerate(machines, 1)]
        made = await asyncio.gather(*(shard.execute() for shard in shards))
        assert [each.state for each in made] == ["complete"] * OF
        seen = server.stats()
        assert (seen["requests"], seen["distinct"], seen["paid_twice"]) == (TARGET, TARGET, 0)
        home = laid_out(tmp_path / "home", server.base_url)
        merged = await merge_shards([each.run for each in made], tmp_path / "home/runs/probe-1", recipe=home)
        assert (merged.summary.state, merged.short, merged.summary.requests) == ("complete", 0, 0)
        lost = laid_out(tmp_path / "again", server.base_url)  # a machine that knows nothing but the store
        again = await open_run(lost, shard=Shard(2, OF)).execute()
        assert server.stats()["requests"] == TARGET
        assert written(again.run) == written(made[1].run)
        assert own_stores(tmp_path) == []
        monkeypatch.setenv(STORE_VARIABLE, postgres_server.fresh())
        whole = await open_run(laid_out(tmp_path / "whole", server.base_url)).execute()
    assert written(merged.summary.run) == written(whole.run)
    assert pq.read_table(whole.run / "rows.parquet").num_rows == TARGET


# -- quotas by the day -------------------------------------------------------------------------------------------


async def ended(path: Path, index: int) -> Summary:
    run = open_run(path, shard=Shard(index, OF))
    try:
        return await run.execute()
    except DistillError:
        assert run.summary is not None
        return run.summary


def with_quota(folder: Path, quota: int) -> Path:
    plan = {"taxonomy": "taxonomies/probe.yaml", "target": 30}
    return rehearsal(folder, plan=plan, teacher={"max_concurrency": 2, "limits": {"requests_per_day": quota}})


async def test_a_shard_uses_its_part_of_the_day_though_others_have_used_theirs(tmp_path: Path) -> None:
    path = with_quota(tmp_path, 36)
    made = [await ended(path, index) for index in range(1, OF + 1)]  # in one workspace, on one store
    assert [each.state for each in made] == ["complete"] * OF


async def test_all_shards_together_keep_the_quota_of_the_day(tmp_path: Path) -> None:
    path = with_quota(tmp_path, 15)
    for _ in range(2):  # what a shard has used counts in its next session too
        made = [await ended(path, index) for index in range(1, OF + 1)]
        assert [each.state for each in made] == ["stopped"] * OF
        with open_store(tmp_path) as store:
            assert store.stats().answers == 15
    whole = open_run(path)
    with contextlib.suppress(DistillError):
        await whole.execute()
    assert whole.summary is not None
    assert (whole.summary.state, whole.summary.requests) == ("stopped", 0)  # what the shards used is used


def test_a_shard_is_known_by_the_name_under_which_it_pays() -> None:
    others = apart_from("digest-of-inputs", Shard(2, 3))
    assert not others(payer_of("digest-of-inputs", Shard(2, 3)))  # the same one, made again
    assert others(payer_of("digest-of-inputs", Shard(3, 3)))
    assert not others(payer_of("digest-of-inputs", Shard(3, 4)))
    assert not others(payer_of("other-inputs....", Shard(3, 3)))
    assert not others(payer_of("digest-of-inputs", None))
    assert not apart_from("digest-of-inputs", None)(payer_of("digest-of-inputs", Shard(3, 3)))
