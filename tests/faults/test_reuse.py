"""An answer once paid is never paid again: not by a session after a crash, nor by another run, recipe or preview."""

from __future__ import annotations

import asyncio
import shutil
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from distill.engine import open_run, prepare
from distill.engine.preview import preview
from distill.recipe import load_recipe
from tests.support.loopback import Loopback
from tests.support.sessions import check_books, faster, session
from tests.support.workspaces import probe

FILES = ("rows.parquet", "rejected.parquet", "failed.parquet", "dataset/train.jsonl", "dataset/README.md")


@pytest.fixture
async def server():
    async with Loopback(latency=0.002) as running:
        yield running


def files(run: Path) -> dict[str, bytes]:
    return {name: (run / name).read_bytes() for name in FILES}


class Crash(Exception):
    """What no code expects."""


async def test_a_crash_between_two_rounds_costs_nothing(tmp_path: Path) -> None:
    """Failures make a second round; the process dies when the first is decided."""

    async def crash(_: object) -> None:
        if not run.progress().pending:
            raise Crash

    async with Loopback(faults={"refusal": 0.1}) as server:
        calm = await session(probe(tmp_path / "calm", server.base_url, target=80))
        assert calm.told["rounds"] > 1
        server.reset()
        recipe = probe(tmp_path / "hit", server.base_url, target=80)
        run = open_run(recipe)
        with pytest.raises(Crash):
            await run.execute(crash)
        assert server.requests == 80
        done = await session(recipe)
    assert (done.told["kept"], done.told["resumed_answers"]) == (80, 80)
    assert server.stats()["paid_twice"] == 0
    assert files(done.path) == files(calm.path)
    check_books(done)


async def test_a_higher_target_pays_only_for_what_is_new(tmp_path: Path, server: Loopback) -> None:
    first = await session(probe(tmp_path, server.base_url, target=60))
    more = await session(probe(tmp_path, server.base_url, target=150))
    assert more.path != first.path  # another target is another dataset
    assert (more.told["kept"], more.told["resumed_answers"], more.told["requests"]) == (150, 60, 90)
    assert server.requests == 150
    assert more.told["reused_cost_usd"] == pytest.approx(first.told["cost_usd"])
    ids = [set(pq.read_table(run.path / "rows.parquet")["id"].to_pylist()) for run in (first, more)]
    assert ids[0] < ids[1]
    check_books(more)


async def test_two_recipes_share_the_answers_to_equal_questions(tmp_path: Path, server: Loopback) -> None:
    await session(probe(tmp_path, server.base_url, target=60))
    other = probe(tmp_path, server.base_url, target=60, name="other", filters=[{"kind": "exact"}])
    other = other.rename(tmp_path / "other.yaml")
    second = await session(other)
    assert (second.told["kept"], second.told["requests"], server.requests) == (60, 0, 60)
    assert second.told["cost_usd"] == 0
    assert second.told["reused_cost_usd"] > 0
    check_books(second)


async def test_a_prompt_edit_asks_its_own_questions_alone(tmp_path: Path, server: Loopback) -> None:
    await session(probe(tmp_path, server.base_url, target=30))
    recipe = probe(tmp_path, server.base_url, target=30)
    prompt = tmp_path / "prompts/probe.j2"
    prompt.write_text(
        prompt.read_text().replace("Write one", '{% if tone == "calm" %}Please write{% else %}Write one{% endif %}')
    )
    edited = await session(recipe)
    calm = sum("tone calm" in body.decode() for body in _bodies(edited.path))
    assert 0 < edited.told["requests"] == calm < 30


def _bodies(run: Path) -> list[bytes]:
    return [turns[0]["content"].encode() for turns in pq.read_table(run / "rows.parquet")["messages"].to_pylist()]


async def test_previewed_answers_are_not_asked_again(tmp_path: Path, server: Loopback) -> None:
    recipe = probe(tmp_path, server.base_url, target=40)
    specimens = await preview(prepare(load_recipe(recipe)), 5)
    assert server.requests == 5
    done = await session(recipe)
    assert (done.told["kept"], done.told["resumed_answers"], server.requests) == (40, 5, 40)
    assert max(server.seen.values()) == 1
    shown = {specimen.rows[0].messages[-1].content for specimen in specimens}
    kept = {turns[-1]["content"] for turns in pq.read_table(done.path / "rows.parquet")["messages"].to_pylist()}
    assert shown <= kept
    check_books(done)


async def test_equal_questions_at_the_same_moment_are_one_call(tmp_path: Path) -> None:
    """Greedy answers do not differ, so slots whose prompts are equal share one."""
    prompt = "Write about {{ leaf | join(' > ') }}, tone {{ tone }}."
    async with Loopback(latency=0.05) as server:
        greedy = {"sampling": {"temperature": 0, "max_tokens": 64}}
        recipe = probe(tmp_path, server.base_url, target=60, teacher=greedy)
        (tmp_path / "prompts/probe.j2").write_text(prompt)
        done = await session(recipe)
        assert (done.told["kept"], server.requests) == (60, 12)  # four leaves, three tones
        assert done.told["teachers"]["main"]["shared"] > 0
    check_books(done)
    other = probe(tmp_path, server.base_url, name="again", target=60, teacher=greedy)
    (tmp_path / "prompts/probe.j2").write_text(prompt)
    replayed = await session(other)
    assert (replayed.told["requests"], replayed.told["reused_cost_usd"]) == (0, done.told["cost_usd"])
    check_books(replayed)


async def test_independent_draws_of_one_question_are_asked_apart(tmp_path: Path, server: Loopback) -> None:
    recipe = probe(tmp_path, server.base_url, target=24)
    (tmp_path / "prompts/probe.j2").write_text("Write about {{ leaf | join(' > ') }}.")
    await session(recipe)
    assert (server.requests, len(server.seen)) == (24, 4)


async def test_the_run_directory_may_be_thrown_away(tmp_path: Path, server: Loopback) -> None:
    first = await session(probe(tmp_path, server.base_url, target=40))
    before = files(first.path)
    shutil.rmtree(tmp_path / "runs")
    again = await session(probe(tmp_path, server.base_url, target=40))
    assert (again.told["requests"], server.requests) == (0, 40)
    assert files(again.path) == before


# -- cut answers ---------------------------------------------------------------------------------------------------


async def test_a_cut_answer_is_asked_for_once_more_with_twice_the_tokens(tmp_path: Path) -> None:
    method = {"kind": "response", "teacher": "main", "prompt": "prompts/probe.j2", "raise_max_tokens": True}
    async with Loopback(match={'"max_tokens":64': "length"}) as server:
        done = await session(probe(tmp_path, server.base_url, target=20, method=method))
    assert (done.told["kept"], done.told["failed"], server.requests) == (20, {}, 40)
    keys = pq.read_table(done.path / "rows.parquet")["keys"].to_pylist()
    assert all(len(row) == 2 for row in keys)  # both answers were paid, and stand behind the row
    check_books(done)


async def test_an_answer_that_is_cut_twice_is_a_fate(tmp_path: Path) -> None:
    method = {"kind": "response", "teacher": "main", "prompt": "prompts/probe.j2", "raise_max_tokens": True}
    async with Loopback(match={"tone angry": "length"}) as server:
        done = await session(probe(tmp_path, server.base_url, target=30, method=method))
        again = await session(probe(tmp_path, server.base_url, target=30, method=method))
    assert done.told["kept"] == 30
    assert set(done.told["failed"]) == {"length"}
    assert again.told["requests"] == 0
    message = pq.read_table(done.path / "failed.parquet")["message"].to_pylist()[0]
    assert "128" in message
    check_books(done)


# -- when every call fails for one reason --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "said"),
    [("401", "refused the key"), ("404", "does not exist"), ("400", "Unknown parameter"), ("length", "max_tokens")],
)
async def test_a_large_plan_is_not_burnt(fault: str, said: str, tmp_path: Path) -> None:
    async with Loopback(faults={fault: 1.0}) as server:
        recipe = probe(tmp_path, server.base_url, target=20_000, teacher={"max_concurrency": 256})
        began = time.monotonic()
        ended = await session(recipe, speed=1)
    assert time.monotonic() - began < 20
    assert ended.code == 1
    assert said in str(ended.error)
    assert server.requests < 1500
    assert ended.told["planned"] == 20_000
    check_books(ended)


async def test_a_refused_key_does_not_wait_for_calls_that_hang(tmp_path: Path) -> None:
    async with Loopback(script=["timeout"] * 6, faults={"401": 1.0}) as server:
        began = time.monotonic()
        ended = await session(probe(tmp_path, server.base_url, target=40), speed=10)
    assert time.monotonic() - began < 5  # ten seconds of patience, ten times as fast; the timeout is two minutes
    assert "refused the key" in str(ended.error)
    assert ended.told["unknown_cost_usd"] > 0
    check_books(ended)


async def test_a_server_that_is_not_there_is_said_in_seconds(tmp_path: Path) -> None:
    async with Loopback() as server:
        port = server.port
    ended = await session(probe(tmp_path, f"http://127.0.0.1:{port}/v1", target=2000), speed=1, limit=20)
    assert ended.code == 1
    assert f"127.0.0.1:{port}" in str(ended.error)
    assert "Is the server running" in str(ended.error)
    told = ended.told
    assert (told["kept"], told["cost_usd"], told["unknown_cost_usd"]) == (0, 0, 0)


async def test_a_server_that_dies_stops_the_run_resumably(tmp_path: Path) -> None:
    async with Loopback(latency=0.01) as server:
        run = open_run(probe(tmp_path, server.base_url, target=300, teacher={"patience_s": 60}))

        async def die() -> None:
            while server.answered < 60:  # noqa: ASYNC110 - the server knows of no event
                await asyncio.sleep(0.005)
            await server.stop()

        async with asyncio.timeout(40), asyncio.TaskGroup() as group:
            group.create_task(die())
            summary = await faster(run, 50).execute()
    assert (summary.state, summary.exit_code) == ("stopped", 3)
    assert "connection" in summary.reason
    assert 0 < summary.counts["kept"] < 300
    async with Loopback() as another:
        # At another port: the host is no part of a question.
        done = await session(probe(tmp_path, another.base_url, target=300))
    assert (done.path, done.told["kept"]) == (run.directory.path, 300)
    assert done.told["resumed_answers"] >= summary.counts["kept"]
