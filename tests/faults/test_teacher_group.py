"""Two servers behind one name: one goes down in the middle of a run, comes back, or is of no use at all."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path
from typing import Any

import orjson
import pyarrow.parquet as pq

from distill.engine import open_run
from tests.support.loopback import Loopback
from tests.support.sessions import check_books, faster, session
from tests.support.workspaces import group_probe


def who_answered(run: Path) -> Counter[str]:
    return Counter(pq.read_table(run / "rows.parquet")["teacher"].to_pylist())


def events(run: Path, kind: str) -> list[dict[str, Any]]:
    lines = [orjson.loads(line) for line in (run / "log.jsonl").read_bytes().splitlines()]
    return [line for line in lines if line["event"] == kind]


async def until(server: Loopback, answered: int) -> None:
    while server.answered < answered:  # noqa: ASYNC110 - the server knows of no event
        await asyncio.sleep(0.005)


async def test_shares_hold_and_the_card_names_both(tmp_path: Path) -> None:
    async with Loopback() as a, Loopback() as b:
        done = await session(group_probe(tmp_path, a=a, b=b, target=200))
        assert (done.code, a.requests + b.requests) == (0, 200)
        assert abs(a.requests - 140) <= 15  # a slow moment of this machine moves a few
    assert who_answered(done.path) == {"a": a.requests, "b": b.requests}
    card = (done.path / "dataset/README.md").read_text()
    assert "model\\-a" in card
    assert "model\\-b" in card
    check_books(done)


async def test_one_goes_down_and_comes_back_and_no_row_is_lost(tmp_path: Path) -> None:
    async with Loopback(latency=0.02) as a, Loopback(latency=0.02) as b:
        run = faster(open_run(group_probe(tmp_path, a=a, b=b, target=1500)), 50)
        port = a.port

        async def weather() -> None:
            await until(a, 200)
            await a.stop()
            answered = b.answered
            await until(b, answered + 200)
            await a.start(port)

        async with asyncio.timeout(60), asyncio.TaskGroup() as tasks:
            tasks.create_task(weather())
            summary = await run.execute()
        told = summary.as_json()
        path = run.directory.path
        assert (told["state"], told["kept"], told["failed"]) == ("complete", 1500, {})
        stats = told["teachers"]
        assert stats["a"]["parked"] >= 1
        assert stats["a"]["moved"] >= 60
        seen = who_answered(path)
        assert seen["b"] == 1500 - seen["a"] == stats["b"]["answered"]
        assert stats["a"]["answered"] > 200 + stats["a"]["parked"]  # it was asked again
        assert {event["teacher"] for event in events(path, "parked")} == {"a"}
        assert events(path, "opened")
        # Run again from the store alone: who answered then answers now, although both are up.
        before = [(path / name).read_bytes() for name in ("rows.parquet", "dataset/train.jsonl", "dataset/README.md")]
        (path / "rows.parquet").unlink()
        again = await session(tmp_path / "probe.yaml", run=path)
        assert again.told["requests"] == 0
        after = [(path / name).read_bytes() for name in ("rows.parquet", "dataset/train.jsonl", "dataset/README.md")]
    assert before == after


async def test_one_without_its_key_is_given_up_and_both_end_the_run(tmp_path: Path) -> None:
    async with Loopback(faults={"401": 1.0}) as a, Loopback() as b:
        done = await session(group_probe(tmp_path, a=a, b=b, target=100))
        assert (done.code, done.told["kept"]) == (0, 100)
        assert who_answered(done.path) == {"b": 100}
        assert "refused the key" in done.told["teachers"]["a"]["state"]
        assert a.requests <= 20
        b.faults = {"insufficient_quota": 1.0}
        ended = await session(group_probe(tmp_path, a=a, b=b, target=200))
        assert (ended.told["state"], ended.code) == ("stopped", 3)
        assert "no teacher of group main can answer" in ended.told["reason"]
        assert "refused the key" in ended.told["reason"]
        check_books(ended)


async def test_a_provider_that_says_the_day_is_used_up_is_left_alone(tmp_path: Path) -> None:
    async with Loopback() as a, Loopback() as b:
        a.script.extend(["ok"] * 50 + ["429_daily"] * 60)
        done = await session(group_probe(tmp_path, a=a, b=b, target=300))
        assert (done.code, done.told["kept"]) == (0, 300)
        assert a.hits["429_daily"] <= 20
        assert "quota" in done.told["teachers"]["a"]["state"]
    alone = tmp_path / "alone"
    async with Loopback(faults={"429_daily": 1.0}) as a, Loopback() as b:
        recipe = group_probe(alone, a=a, b=b, target=30, groups={"main": {"share": {"a": 1}}})
        ended = await session(recipe)
        assert (ended.told["state"], ended.code) == ("stopped", 3)
        assert "the quota of the day" in ended.told["reason"]
        assert a.requests <= 40
        check_books(ended)
