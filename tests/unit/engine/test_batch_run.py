"""Whole runs by batch: several steps and rounds, detached and picked up, with the same rows as online."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from distill.engine import Run, open_run
from distill.errors import InputError
from distill.recipe import load_recipe
from tests.support.batch_server import BatchServer
from tests.support.workspaces import probe

PLAIN = "{# prompts/answer.j2 #}\nAnswer this customer: {{ input }}\n"
TEACHER = {"batch": {"poll_s": 5}, "sampling": {"temperature": 0.8, "max_tokens": 64}}
METHOD = {"kind": "response", "teacher": "main", "input": "prompts/probe.j2", "prompt": "prompts/answer.j2"}


@pytest.fixture
async def server() -> AsyncIterator[BatchServer]:
    async with BatchServer(work_s=0.1) as server:
        yield server


def recipe(folder: Path, server: BatchServer, mode: str, **more: Any) -> Path:
    path = probe(folder, server.base_url, target=12, teacher={**TEACHER, "mode": mode}, method=METHOD, **more)
    (folder / "prompts/answer.j2").write_text(PLAIN)
    return path


def opened(path: Path, *, detach: bool = False, speed: float = 50.0) -> Run:
    """On a clock of its own: waiting is the gateway's alone."""
    run = open_run(path)

    async def sleep(seconds: float) -> None:
        await asyncio.sleep(seconds / speed)

    return Run(run.prepared, run.directory, detach=detach, clock=lambda: time.monotonic() * speed, sleep=sleep)


def texts(run: Run) -> list[Any]:
    return pq.read_table(run.directory.rows, columns=["id", "messages"]).to_pylist()


async def test_steps_and_rounds_go_by_batch_and_give_the_rows_of_an_online_run(
    server: BatchServer, tmp_path: Path
) -> None:
    # About half of the rows are too short, so that more rounds are needed.
    filters = [{"kind": "length", "min_chars": 143}]
    by_batch = opened(recipe(tmp_path / "batch", server, "batch", filters=filters))
    summary = await by_batch.execute()
    assert summary.state == "complete"
    assert summary.counts["rounds"] > 1
    batches = [len(job.requests) for job in server.jobs.values()]
    assert len(batches) >= 2 * summary.counts["rounds"]
    assert batches[:2] == [12, 12]
    assert server.stats()["online"] == 0
    online = opened(recipe(tmp_path / "online", server, "online", filters=filters))
    other = await online.execute()
    assert texts(by_batch) == texts(online)
    assert float(summary.cost_usd) == pytest.approx(float(other.cost_usd) / 2)


async def test_a_detached_run_says_so_and_the_same_command_goes_on(server: BatchServer, tmp_path: Path) -> None:
    server.work_s = 3600.0
    path = recipe(tmp_path, server, "batch")
    first = await opened(path, detach=True).execute()
    assert first.state == "stopped"
    assert first.exit_code == 3
    assert "1 batch with 12 requests of teacher main are under way" in first.reason
    server.work_s = 0.0
    again = await opened(path, detach=True).execute()  # the second step waits now, for no time at all
    assert again.state in ("stopped", "complete")
    last = await opened(path).execute()
    assert last.state == "complete"
    assert last.unknown_cost_usd == 0
    told = server.stats()
    assert (told["batches"], told["paid"], told["twice"], told["orphans"]) == (2, 24, 0, 0)


async def test_who_goes_online_in_between_gets_what_the_batch_has_and_pays_for_the_rest(
    server: BatchServer, tmp_path: Path
) -> None:
    server.work_s = 3600.0
    stopped = await opened(recipe(tmp_path, server, "batch"), detach=True).execute()
    assert stopped.state == "stopped"
    (job,) = server.jobs.values()
    job.created -= 1800  # half of it is done when it is broken off
    server.work_s = 3600.0
    going = asyncio.create_task(opened(recipe(tmp_path, server, "online")).execute())
    while job.cancelled is None:  # noqa: ASYNC110 - the server is another program
        await asyncio.sleep(0.01)
    server.work_s = 0.0
    last = await going
    assert last.state == "complete"
    told = server.stats()
    assert (told["paid"], told["twice"], told["orphans"], told["online"]) == (24, 0, 0, 18)


def test_modes_do_not_change_what_a_run_is(server: BatchServer, tmp_path: Path) -> None:
    digests = {load_recipe(recipe(tmp_path / mode, server, mode)).digest for mode in ("online", "batch", "auto")}
    assert len(digests) == 1


async def test_detaching_from_a_run_without_batches_is_refused(server: BatchServer, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no teacher of this recipe is asked by batch"):
        await opened(recipe(tmp_path, server, "online"), detach=True).execute()


def test_a_teacher_without_a_batch_api_is_refused(tmp_path: Path) -> None:
    path = probe(tmp_path, "http://127.0.0.1:1/v1", teacher={"provider": "local", "base_url": None, "mode": "batch"})
    with pytest.raises(InputError, match="has no batch API"):
        load_recipe(path)
