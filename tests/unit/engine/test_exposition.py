"""Metrics are what Prometheus's own parser reads, and say what the summary says."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from distill.engine import exposed, open_run
from distill.engine.accounting import Account
from distill.engine.exposition import Latencies, exposition
from distill.engine.standing import Standing
from distill.errors import InputError
from distill.gateway import TeacherStats
from tests.support.loopback import Loopback
from tests.support.workspaces import probe

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def read(text: str) -> Samples:
    return {
        (sample.name, tuple(sorted((key, value) for key, value in sample.labels.items() if key != "run"))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


async def get(address: str, path: str = "/metrics", method: str = "GET") -> tuple[int, str]:
    host, port = address.removeprefix("http://").partition("/")[0].split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(f"{method} {path} HTTP/1.1\r\nhost: x\r\n\r\n".encode())
    reply = (await reader.read()).decode()
    writer.close()
    head, _, body = reply.partition("\r\n\r\n")
    return int(head.split()[1]), body


async def test_a_run_is_scraped_while_it_goes_and_when_it_has_ended(tmp_path: Path) -> None:
    file = tmp_path / "run.prom"
    async with Loopback(latency=0.3, script=["ok", "500", "refusal"]) as server:
        run = open_run(
            probe(tmp_path, server.base_url, target=40, filters=[{"kind": "exact"}], teacher={"max_concurrency": 8})
        )
        async with exposed(run.exposition, "0") as address, exposed(run.exposition, str(file)) as path:
            assert path == str(file)
            assert address.startswith("http://127.0.0.1:")
            task = asyncio.create_task(run.execute())
            seen: Samples = {}
            async with asyncio.timeout(60):
                while not task.done():
                    status, body = await get(address)
                    assert status == 200
                    seen = max(seen, read(body), key=lambda each: each.get(IN_FLIGHT, 0))
                    await asyncio.sleep(0.02)
            summary = await task
            assert (await get(address, "/secrets"))[0] == 404
            assert (await get(address, method="POST"))[0] == 405
            assert (await get(address, method="HEAD")) == (200, "")
    assert 0 < seen[IN_FLIGHT] <= 8
    assert seen["distill_run_state", (("state", "running"),)] == 1
    last = read(file.read_text())
    stats = summary.teachers["main"]
    main = ("teacher", "main")
    assert last["distill_run_state", (("state", "complete"),)] == 1
    assert last["distill_rows_kept_total", ()] == last["distill_rows_target", ()] == 40
    assert last["distill_rows_failed_total", (("failure", "refused"),)] == 1
    assert last["distill_rows_pending", ()] == 0
    assert last["distill_requests_total", (main,)] == stats["sent"] == server.requests
    assert last["distill_retries_total", (main,)] == 1
    assert last["distill_request_failures_total", (("failure", "overloaded"), main)] == 1
    assert last["distill_tokens_total", (("kind", "output"), main)] == summary.tokens["output"] > 0
    assert last["distill_cost_usd_total", (main,)] == pytest.approx(float(summary.cost_usd))
    assert last["distill_teacher_parked", (main,)] == 0
    assert last["distill_request_seconds_count", (main,)] == stats["answered"]
    assert last["distill_request_seconds_bucket", (("le", "0.25"), main)] == 0
    assert last["distill_request_seconds_bucket", (("le", "+Inf"), main)] == stats["answered"]
    assert "test-key-000000" not in file.read_text()


IN_FLIGHT = ("distill_requests_in_flight", (("teacher", "main"),))


def test_names_of_any_kind_survive() -> None:
    account = Account.open({("a",): 5})
    account.rejected['my "own"\\filter\n'] = account.failed.__class__({"too # long": 2})
    standing = Standing(account, target=5, clock=lambda: 1.0)
    latency = Latencies()
    latency.note(0.1)
    latency.note(1e9)
    told = read(
        exposition(standing.progress(), account, {"ä b": TeacherStats()}, {"ä b": latency}, labels={}, state="running")
    )
    assert told["distill_rows_rejected_total", (("filter", 'my "own"\\filter\n'), ("reason", "too # long"))] == 2
    assert told["distill_request_seconds_bucket", (("le", "0.1"), ("teacher", "ä b"))] == 1
    assert told["distill_request_seconds_bucket", (("le", "+Inf"), ("teacher", "ä b"))] == 2


@pytest.mark.parametrize("where", ["abc", "127.0.0.1", "70000", "file/run.prom", "host:port"])
async def test_a_place_that_cannot_be_is_said_at_the_start(where: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="--metrics"):
        async with exposed(lambda: "", str(tmp_path / where) if "/" in where else where):
            pass


async def test_a_port_that_is_taken_is_said() -> None:
    async with exposed(lambda: "", "0") as address:
        port = address.rpartition(":")[2].partition("/")[0]
        with pytest.raises(InputError, match=f"{port} cannot be had"):
            async with exposed(lambda: "", port):
                pass
