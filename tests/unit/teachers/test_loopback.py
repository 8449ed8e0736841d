"""The loopback server counts right: benchmarks and fault tests stand on it."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from pathlib import Path
from urllib.request import Request, urlopen

import aiohttp
import pytest

from tests.support.loopback import Loopback

BODY = {"model": "mock", "messages": [{"role": "user", "content": "hello"}]}


async def test_equal_payloads_get_equal_texts_and_are_counted() -> None:
    async with Loopback() as server, aiohttp.ClientSession() as session:
        texts: list[str] = []
        for content in ("a", "b", "a"):
            body = {**BODY, "messages": [{"role": "user", "content": content}]}
            async with session.post(f"{server.base_url}/chat/completions", json=body) as reply:
                texts.append((await reply.json())["choices"][0]["message"]["content"])
        async with session.get(f"http://127.0.0.1:{server.port}/stats?payloads=1") as reply:
            stats = await reply.json()
        async with session.post(f"http://127.0.0.1:{server.port}/reset") as reply:
            assert (await reply.json())["ok"]
        assert server.requests == 0
    assert texts[0] == texts[2] != texts[1]
    assert (stats["requests"], stats["distinct"], stats["paid"], stats["paid_twice"]) == (3, 2, 3, 1)
    assert sorted(entry["paid"] for entry in stats["payloads"].values()) == [1, 2]


async def test_what_was_paid_again_is_told_with_what_became_of_the_request_before() -> None:
    async with Loopback(script=["ok", "truncated_json"], latency=0.01) as server, aiohttp.ClientSession() as session:

        async def ask() -> None:
            async with session.post(f"{server.base_url}/chat/completions", json=BODY) as reply:
                await reply.read()

        for _ in range(3):
            await ask()
        server.latency = 5
        gone = asyncio.create_task(ask())
        await asyncio.sleep(0.05)
        gone.cancel()
        await asyncio.gather(gone, return_exceptions=True)
        server.latency = 0
        await ask()
        async with session.get(f"http://127.0.0.1:{server.port}/stats?repeats=1") as reply:
            repeats = (await reply.json())["repeats"]
    assert [repeat["fault"] for repeat in repeats] == [None, "truncated_json", None, None]
    assert [repeat["replied"] is None for repeat in repeats] == [False, False, False, True]
    assert all(repeat["arrived"] < (repeat["replied"] or repeat["again"]) <= repeat["again"] for repeat in repeats)


async def test_what_is_in_flight_is_counted_and_lost_connections_leave() -> None:
    async with Loopback(latency=0.05) as server, aiohttp.ClientSession() as session:

        async def ask() -> None:
            async with session.post(f"{server.base_url}/chat/completions", json=BODY) as reply:
                await reply.read()

        await asyncio.gather(*(ask() for _ in range(20)))
        assert server.max_in_flight == 20
        server.latency = 5
        lost = asyncio.create_task(ask())
        await asyncio.sleep(0.05)
        assert server.in_flight == 1
        lost.cancel()
        await asyncio.gather(lost, return_exceptions=True)
        await asyncio.sleep(0.05)
        assert server.in_flight == 0


async def test_its_limit_lets_the_rate_through() -> None:
    async with Loopback(rpm=6, burst=5) as server, aiohttp.ClientSession() as session:
        statuses: list[int] = []
        for _ in range(12):
            async with session.post(f"{server.base_url}/chat/completions", json=BODY) as reply:
                statuses.append(reply.status)
                last = reply.headers.get("retry-after-ms")
        assert statuses.count(200) in (5, 6)
        assert server.hits["limit"] == statuses.count(429)
        assert last is not None
        assert 0 < int(last) <= 10_000


async def test_random_faults_are_the_same_every_time() -> None:
    runs: list[dict[str, int]] = []
    for _ in range(2):
        async with Loopback(faults={"500": 0.3, "empty_choices": 0.2}) as server, aiohttp.ClientSession() as session:
            for n in range(60):
                body = {**BODY, "messages": [{"role": "user", "content": str(n)}]}
                async with session.post(f"{server.base_url}/chat/completions", json=body) as reply:
                    await reply.read()
            runs.append(dict(server.hits))
    assert runs[0] == runs[1]
    assert runs[0].keys() == {"500", "empty_choices"}


async def test_a_fault_can_be_tied_to_a_text() -> None:
    async with Loopback(match={"[[500]]": "500"}) as server, aiohttp.ClientSession() as session:
        for content, status in (("plain", 200), ("with [[500]] in it", 500), ("with [[500]] in it", 500)):
            body = {**BODY, "messages": [{"role": "user", "content": content}]}
            async with session.post(f"{server.base_url}/chat/completions", json=body) as reply:
                assert reply.status == status


def test_an_unknown_fault_is_refused() -> None:
    with pytest.raises(ValueError, match="no such fault: 555"):
        Loopback(script=["555"])


def test_it_runs_by_itself() -> None:
    command = [sys.executable, "-m", "tests.support.loopback", "--port", "0", "--fault", "500=1.0"]
    root = Path(__file__).parents[3]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=root) as process:
        try:
            assert process.stdout is not None
            address = json.loads(process.stdout.readline())
            request = Request(f"{address['base_url']}/models")
            with urlopen(request, timeout=10) as reply:
                assert json.load(reply)["data"][0]["id"] == "mock"
        finally:
            process.terminate()
            _, errors = process.communicate(timeout=10)
    assert json.loads(errors)["requests"] == 0
