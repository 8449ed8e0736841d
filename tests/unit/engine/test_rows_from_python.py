"""Rows from Python: the async generator, its twin for notebooks, and what becomes of a run whose reader leaves."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

import distill
from distill.engine import open_run
from distill.errors import Halted, InputError
from distill.recipe import PlanConfig, Recipe, ResponseConfig, TeacherConfig
from tests.support.workspaces import rehearsal


@pytest.fixture(autouse=True)
def _nothing_is_left_behind() -> Iterator[None]:
    """No task is destroyed while pending, no coroutine is never awaited, no thread of a run goes on."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield
        gc.collect()
    assert not [thread.name for thread in threading.enumerate() if thread.name == "distill-generate"]


def built(folder: Path, *, target: int = 12, latency: float = 0.0, **fields: Any) -> Recipe:
    """A recipe made of objects; its files stand in `folder`."""
    rehearsal(folder)
    values: dict[str, Any] = {
        "name": "probe",
        "seed": 7,
        "teachers": {
            "main": TeacherConfig(
                provider="simulated", model="rehearsal", max_concurrency=8, simulate={"latency_s": latency}
            )
        },
        "plan": PlanConfig(taxonomy="taxonomies/probe.yaml", target=target),
        "method": ResponseConfig(teacher="main", prompt="prompts/probe.j2"),
        "filters": (),
        **fields,
    }
    return Recipe(**values).at(folder)


def state_of(folder: Path, name: str = "probe-1") -> str:
    return json.loads((folder / "runs" / name / "run.json").read_text())["state"]


async def test_rows_come_as_they_stand_in_the_file(tmp_path: Path) -> None:
    recipe = built(tmp_path)
    rows = [row async for row in distill.generate(recipe)]
    stored = pq.read_table(tmp_path / "runs/probe-1/rows.parquet").to_pylist()
    assert [row.id for row in rows] == [row["id"] for row in stored]
    assert [row.messages[-1].content for row in rows] == [row["messages"][-1]["content"] for row in stored]
    assert state_of(tmp_path) == "complete"
    again = [row.id async for row in distill.generate(recipe)]
    assert again == [row.id for row in rows]
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["probe-1"]


async def test_a_recipe_may_be_a_file_a_mapping_or_objects(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = built(tmp_path)
    mapping = recipe.model_dump(mode="json", by_alias=True)
    monkeypatch.chdir(tmp_path)
    ids = [[row.id async for row in distill.generate(source)] for source in (recipe, mapping)]
    assert ids[0] == ids[1]
    file = rehearsal(tmp_path)
    assert len([row async for row in distill.generate(str(file))]) == 12
    with pytest.raises(InputError, match=r"plan\.targt: no such field; did you mean target\?"):
        open_run({**mapping, "plan": {"taxonomy": "probe", "targt": 3}})


async def test_leaving_the_loop_stops_the_run_and_the_next_loop_continues_it(tmp_path: Path) -> None:
    recipe = built(tmp_path, target=200, latency=0.02)
    async with contextlib.aclosing(distill.generate(recipe)) as rows:
        seen = [(await anext(rows)).id]
    assert state_of(tmp_path) == "stopped"
    paid = open_run(recipe).directory.describe()
    assert paid is not None
    assert 1 <= paid["summary"]["kept"] < 200
    assert pq.read_metadata(tmp_path / "runs/probe-1/rows.parquet").num_rows == paid["summary"]["kept"]
    rest = [row.id async for row in distill.generate(recipe)]
    assert len(rest) == 200
    assert rest[:1] == seen
    told = json.loads((tmp_path / "runs/probe-1/run.json").read_text())["summary"]
    assert told["requests"] + paid["summary"]["requests"] == 200


async def test_a_loop_that_is_simply_left_stops_its_run_too(tmp_path: Path) -> None:
    async for _ in distill.generate(built(tmp_path, target=200, latency=0.02)):
        break
    gc.collect()
    async with asyncio.timeout(5):
        while state_of(tmp_path) == "running":  # noqa: ASYNC110 - another task writes it
            await asyncio.sleep(0.01)
    assert state_of(tmp_path) == "stopped"


async def test_a_loop_that_is_cancelled_leaves_a_run_that_continues(tmp_path: Path) -> None:
    recipe = built(tmp_path, target=200, latency=0.02)
    started = asyncio.Event()

    async def read() -> None:
        async for _ in distill.generate(recipe):
            started.set()

    task = asyncio.create_task(read())
    await started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert asyncio.all_tasks() == {asyncio.current_task()}
    assert len([row async for row in distill.generate(recipe)]) == 200


async def test_a_slow_reader_loses_nothing(tmp_path: Path) -> None:
    count = 0
    async for _ in distill.generate(built(tmp_path, target=3000)):
        count += 1
        if count % 500 == 0:
            await asyncio.sleep(0.02)
    assert count == 3000


async def test_the_readers_own_error_comes_through(tmp_path: Path) -> None:
    async def read() -> None:
        async with contextlib.aclosing(distill.generate(built(tmp_path, target=200, latency=0.02))) as rows:
            async for _ in rows:
                raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await read()
    assert state_of(tmp_path) == "stopped"


async def test_a_run_that_ends_short_says_so_after_its_rows(tmp_path: Path) -> None:
    strict = built(tmp_path, filters=[{"kind": "length", "min_words": 5000}])
    with pytest.raises(Halted, match=r"0 rows kept, then: 4 leaves stopped yielding"):
        _ = [row async for row in distill.generate(strict)]
    assert state_of(tmp_path) == "short"


async def test_what_is_wrong_is_raised_before_anything_is_made(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file in taxonomies"):
        _ = [row async for row in distill.generate(built(tmp_path, plan=PlanConfig(taxonomy="nope", target=1)))]
    keyed = TeacherConfig(provider="openai", base_url="http://127.0.0.1:9/v1", model="m", api_key="${NOT_SET_HERE}")
    with pytest.raises(InputError, match="NOT_SET_HERE"):
        _ = [row async for row in distill.generate(built(tmp_path, teachers={"main": keyed}))]
    assert not list((tmp_path / "runs").iterdir())


def test_the_twin_reads_without_a_loop(tmp_path: Path) -> None:
    recipe = built(tmp_path)
    rows = list(distill.generate_sync(recipe))
    assert len(rows) == 12
    assert list(distill.generate_sync(recipe, run=tmp_path / "elsewhere")) == rows
    assert (tmp_path / "elsewhere/rows.parquet").is_file()
    with pytest.raises(InputError, match="cannot be read"):
        next(distill.generate_sync(tmp_path / "nope.yaml"))


async def test_the_twin_reads_inside_a_running_loop(tmp_path: Path) -> None:
    assert len(list(distill.generate_sync(built(tmp_path)))) == 12


def test_leaving_the_twin_early_ends_its_thread_though_no_row_comes(tmp_path: Path) -> None:
    recipe = built(tmp_path, target=200, latency=0.02)
    rows = distill.generate_sync(recipe)
    first = next(rows).id
    rows.close()
    assert state_of(tmp_path) == "stopped"
    for row in distill.generate_sync(recipe):
        assert row.id == first
        break
    assert len(list(distill.generate_sync(recipe))) == 200


def test_another_workspace_holds_runs_and_answers_when_asked_to(tmp_path: Path) -> None:
    recipe = built(tmp_path / "files")
    assert len(list(distill.generate_sync(recipe, workspace=tmp_path / "data"))) == 12
    assert (tmp_path / "data/runs/probe-1/rows.parquet").is_file()
    assert (tmp_path / "data/.distill/answers.sqlite").is_file()
    assert not (tmp_path / "files/runs").exists()
