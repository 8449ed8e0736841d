"""`distill answers`, as people use it on the store of a workspace."""

from __future__ import annotations

import asyncio
import json
import shutil
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from distill.cli import app
from distill.engine import open_run
from distill.errors import InputError
from tests.support.workspaces import rehearsal

STORE = ".distill/answers.sqlite"


def answers(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["answers", *arguments])


def told(*arguments: str) -> dict[str, Any]:
    said = answers(*arguments, "--json")
    assert said.exit_code == 0, said.output
    return json.loads(said.stdout.splitlines()[-1])


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    """A workspace with two runs: the second one uses answers of the first."""
    folder = tmp_path / "w"
    (folder / ".distill").mkdir(parents=True)
    run(rehearsal(folder))
    return folder


def run(path: Path, *, new: bool = False) -> Path:
    return asyncio.run(open_run(path, new=new).execute()).run


def change(folder: Path, statement: str) -> None:
    connection = sqlite3.connect(folder / STORE, isolation_level=None)
    connection.execute(statement)
    connection.close()


def test_stats_count_what_is_there_by_model_and_by_run(workspace: Path) -> None:
    value = told("stats", "--workspace", str(workspace))
    assert value["answers"] == 12
    assert value["bytes"] >= (workspace / STORE).stat().st_size > 0
    assert [figures["answers"] for figures in value["models"].values()] == [12]
    (figures,) = value["runs"].values()
    assert (figures["name"], figures["answers"]) == ("probe-1", 12)
    assert value["input_tokens"] == figures["input_tokens"] > 0
    assert "12 answers" in answers("stats", "--workspace", str(workspace)).stdout
    listed = CliRunner().invoke(app, ["runs", "--workspace", str(workspace), "--json"])
    assert json.loads(listed.stdout)["store"]["bytes"] > 0


def test_a_sound_store_is_proven_by_what_was_asked(workspace: Path) -> None:
    value = told("verify", "--workspace", str(workspace))
    assert (value["answers"], value["keys_proven"], value["sound"]) == (12, 12, True)


def test_damaged_answers_are_named_moved_aside_and_asked_again(workspace: Path) -> None:
    change(workspace, "UPDATE answers SET body = x'00' WHERE id = 3")
    change(workspace, "UPDATE requests SET wire = '{}' WHERE id = 5")
    said = answers("verify", "--workspace", str(workspace), "--json")
    assert said.exit_code == 1
    flaws = json.loads(said.stdout)["flaws"]
    assert {flaw["why"].split(" (")[0] for flaw in flaws} == {
        "the body is not what was stored",
        "the key is not the digest of the stored request",
    }
    run_id = json.loads((workspace / "runs/probe-1/run.json").read_text())["id"]
    assert {flaw["run"] for flaw in flaws} == {run_id}
    value = told("verify", "--repair", "--workspace", str(workspace))
    lines = [json.loads(line) for line in Path(value["quarantine"]).read_text().splitlines()]
    assert {line["key"] for line in lines} == {flaw["key"] for flaw in flaws}
    assert told("verify", "--workspace", str(workspace))["answers"] == 10
    again = asyncio.run(open_run(workspace / "probe.yaml", new=True).execute())
    assert (again.requests, again.counts["kept"]) == (2, 12)


def test_a_broken_file_is_recovered_on_request(workspace: Path) -> None:
    with (workspace / STORE).open("r+b") as file:
        file.seek(0)
        file.write(b"\xff" * 100)
    broken = answers("verify", "--workspace", str(workspace), "--json")
    assert broken.exit_code == 1
    assert json.loads(broken.stdout)["damage"]
    value = told("verify", "--repair", "--workspace", str(workspace))
    assert "recovered" in value["recovered"]
    assert told("verify", "--workspace", str(workspace))["sound"]


def test_what_no_run_refers_to_is_removed_and_nothing_else(workspace: Path, tmp_path: Path) -> None:
    other = rehearsal(workspace, file="other.yaml", name="other", seed=9, filters=None)
    gone, elsewhere = run(other), tmp_path / "elsewhere"
    asyncio.run(open_run(rehearsal(workspace, file="third.yaml", name="third"), run=elsewhere).execute())
    rehearsal(workspace)
    run(workspace / "probe.yaml", new=True)  # made of the first run's answers
    shutil.rmtree(workspace / "runs/probe-1")  # which now belong to the second
    shutil.rmtree(gone)
    here = ("--workspace", str(workspace), "--run", str(elsewhere))
    before = told("stats", *here[:2])
    plan = told("prune", *here, "--dry-run")
    assert plan["removed"] == 0
    assert sum(each["answers"] for each in plan["unreferred"].values()) == before["answers"] - 12
    refused = answers("prune", *here)
    assert isinstance(refused.exception, InputError)
    done = told("prune", *here, "--yes")
    assert done["removed"] == before["answers"] - 12
    assert done["bytes_after"] < done["bytes_before"]
    after = told("stats", *here[:2])
    assert (after["answers"], after["cost_usd"]) == (12, before["cost_usd"])
    assert told("prune", *here, "--yes")["unreferred"] == {}
    again = asyncio.run(open_run(workspace / "probe.yaml", new=True).execute())
    assert again.requests == 0


def test_an_export_holds_what_was_asked_and_said(workspace: Path, tmp_path: Path) -> None:
    target = tmp_path / "answers.jsonl"
    assert told("export", str(target), "--workspace", str(workspace))["answers"] == 12
    lines = [json.loads(line) for line in target.read_text().splitlines()]
    assert "customer message" in lines[0]["request"]["messages"][-1]["content"]
    kept = (workspace / "runs/probe-1/dataset/train.jsonl").read_text()
    assert any(json.dumps(line["answer"], ensure_ascii=False)[1:-1] in kept for line in lines)
    assert all(line["usage"]["output"] > 0 and line["finish"] == "stop" for line in lines)


def test_stores_are_united(workspace: Path, tmp_path: Path) -> None:
    colleague = tmp_path / "c"
    (colleague / ".distill").mkdir(parents=True)
    path = rehearsal(colleague)
    into = ("--workspace", str(colleague))
    value = told("merge", str(workspace), *into)
    assert list(value["sources"].values()) == [{"added": 12, "present": 0, "damaged": 0}]
    (again,) = told("merge", str(workspace / STORE), *into)["sources"].values()
    assert again["present"] == 12
    done = asyncio.run(open_run(path).execute())
    assert (done.requests, done.counts["kept"]) == (0, 12)
    for source in (str(colleague), str(tmp_path / "nothing.sqlite")):
        assert isinstance(answers("merge", source, *into).exception, InputError)


def test_a_workspace_without_a_store_says_so(tmp_path: Path) -> None:
    for command in ("stats", "verify", "prune"):
        failed = answers(command, "--workspace", str(tmp_path)).exception
        assert isinstance(failed, InputError)
        assert "no answer store here" in failed.message
