"""The main job through the command line, as a harness drives it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from tests.support.loopback import Loopback
from tests.support.workspaces import probe


def distill(*arguments: str, cwd: Path, code: int = 0) -> dict[str, Any]:
    """Run the command in its own process; the last line of stdout is its JSON."""
    done = subprocess.run([sys.executable, "-m", "distill", *arguments], cwd=cwd, capture_output=True, text=True)
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture
async def server():
    async with Loopback(latency=0.005) as running:
        yield running


async def run(*arguments: str, cwd: Path, code: int = 0) -> dict[str, Any]:
    import asyncio

    return await asyncio.to_thread(lambda: distill(*arguments, cwd=cwd, code=code))


async def test_a_recipe_becomes_a_dataset_and_the_same_command_says_it_is_done(
    tmp_path: Path, server: Loopback
) -> None:
    recipe = probe(tmp_path, server.base_url, target=60)
    first = await run("generate", recipe.name, "--json", cwd=tmp_path)
    assert (first["planned"], first["kept"], first["rejected"], first["failed"]) == (60, 60, {}, {})
    assert first["cost_usd"] > 0
    assert Path(first["run"]) == tmp_path / "runs/probe-1"
    rows = pq.read_table(tmp_path / "runs/probe-1/rows.parquet")
    assert {"id", "messages", "leaf", "teacher", "cost_usd"} <= set(rows.column_names)
    assert len(set(rows["id"].to_pylist())) == 60
    assert sum(rows["cost_usd"].to_pylist()) == pytest.approx(first["cost_usd"])
    turns = rows["messages"].to_pylist()[0]
    assert [turn["role"] for turn in turns] == ["user", "assistant"]
    assert turns[0]["content"].startswith("Write one customer message about ")
    assert server.requests == 60

    again = await run("generate", recipe.name, "--json", cwd=tmp_path)
    assert again["already_complete"]
    assert again["kept"] == 60
    assert server.requests == 60


async def test_a_leaf_of_twice_the_weight_gets_twice_the_rows(tmp_path: Path, server: Loopback) -> None:
    recipe = probe(tmp_path, server.base_url, target=60)
    await run("generate", recipe.name, "--json", "--run", "out", cwd=tmp_path)
    leaves = ["/".join(leaf) for leaf in pq.read_table(tmp_path / "out/rows.parquet")["leaf"].to_pylist()]
    counts = {leaf: leaves.count(leaf) for leaf in sorted(set(leaves))}
    assert counts == {"cards/declined": 20, "cards/lost": 20, "loans/early_repayment": 10, "loans/rate": 10}


async def test_a_budget_stops_the_run_before_it_is_passed_and_more_money_continues_it(
    tmp_path: Path, server: Loopback
) -> None:
    probe(tmp_path, server.base_url, target=400, budget={"usd": 0.004})
    stopped = await run("generate", "probe.yaml", "--json", cwd=tmp_path, code=3)
    assert stopped["state"] == "stopped"
    assert 0 < stopped["kept"] < 400
    assert stopped["cost_usd"] <= 0.004
    assert stopped["planned"] == stopped["kept"] + stopped["pending"]
    paid = server.requests

    probe(tmp_path, server.base_url, target=400, budget={"usd": 5})
    done = await run("generate", "probe.yaml", "--json", cwd=tmp_path)
    assert Path(done["run"]) == Path(stopped["run"])
    assert done["kept"] == 400
    assert done["resumed_answers"] >= stopped["kept"]
    assert server.requests - paid == 400 - done["resumed_answers"]


async def test_rows_do_not_depend_on_order_of_arrival_or_on_interruptions(tmp_path: Path, server: Loopback) -> None:
    files: list[dict[str, bytes]] = []
    for name, concurrency, jitter in (("a", 1, 0.0), ("b", 64, 0.9)):
        server.jitter = jitter
        folder = tmp_path / name
        probe(
            folder,
            server.base_url,
            target=300,
            teacher={"max_concurrency": concurrency},
            filters=[{"kind": "exact"}, {"kind": "minhash", "threshold": 0.7}],
        )
        await run("generate", "probe.yaml", "--json", "--run", "out", cwd=folder)
        names = ("rows.parquet", "rejected.parquet", "failed.parquet", "dataset/train.jsonl", "dataset/README.md")
        files.append({name: (folder / "out" / name).read_bytes() for name in names})
    assert files[0] == files[1]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"plan": {"taxonomy": "taxonomies/probe.yaml", "targt": 3}}, "did you mean target?"),
        ({"method": {"kind": "response", "teacher": "main", "prompt": "prompts/prob.j2"}}, "did you mean probe.j2"),
        ({"budget": {"usdd": 3}}, "did you mean usd?"),
    ],
)
def test_a_mistake_is_named_without_a_traceback(tmp_path: Path, change: dict[str, Any], said: str) -> None:
    probe(tmp_path, "http://127.0.0.1:9/v1", **change)
    for command in ("generate", "check"):
        done = subprocess.run(
            [sys.executable, "-m", "distill", command, "probe.yaml"], cwd=tmp_path, capture_output=True, text=True
        )
        assert done.returncode == 2
        assert said in (done.stderr + done.stdout).replace("\n", " ")
        assert "Traceback" not in done.stderr


def test_a_missing_key_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    probe(tmp_path, "http://127.0.0.1:9/v1")
    monkeypatch.delenv("TEACHER_KEY")
    error = distill("generate", "probe.yaml", "--json", cwd=tmp_path, code=2)
    assert "TEACHER_KEY" in error["message"]
    assert "teachers.main.api_key" in error["message"]


def test_a_server_that_is_not_there_ends_in_seconds_with_its_address(tmp_path: Path) -> None:
    probe(tmp_path, "http://127.0.0.1:9/v1")
    error = distill("generate", "probe.yaml", "--json", cwd=tmp_path, code=1)
    assert "127.0.0.1:9" in error["message"] + str(error["hint"])


async def test_a_taxonomy_that_changed_starts_the_next_run(tmp_path: Path, server: Loopback) -> None:
    probe(tmp_path, server.base_url, target=20)
    await run("generate", "probe.yaml", "--json", cwd=tmp_path)
    (tmp_path / "prompts/probe.j2").write_text("Another prompt {{ slot.index }}")
    second = await run("generate", "probe.yaml", "--json", cwd=tmp_path)
    assert Path(second["run"]).name == "probe-2"
    error = await run("generate", "probe.yaml", "--json", "--run", "runs/probe-1", cwd=tmp_path, code=2)
    assert "other inputs" in error["message"]
