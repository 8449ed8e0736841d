"""A run whose chain ends with a choice: every row is kept or not as ever, the training files hold the chosen ones."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from distill.engine import prepare
from distill.engine.check import check
from distill.errors import InputError
from distill.recipe import load_recipe
from tests.support.loopback import Loopback
from tests.support.sessions import check_books, session
from tests.support.tiny_embedder import make_static
from tests.support.workspaces import probe

WORDS = ["card", "cards", "lost", "loan", "loans", "rate", "declined", "early", "calm", "angry", "message", "number"]


def recipe(folder: Path, server: Loopback, *, usd: float = 5, **step: object) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    make_static(folder.parent / "static", WORDS)
    choice = {"kind": "diversity", "keep": 12, "by": "leaf", "model": "../static", **step}
    filters = [{"kind": "exact", "fields": ["response"]}, choice]
    return probe(folder, server.base_url, target=40, filters=filters, budget={"usd": usd}, dataset={"validation": 0.25})


def training(path: Path) -> list[str]:
    files = [path / "dataset" / f"{split}.jsonl" for split in ("train", "validation")]
    return [json.loads(line)["id"] for file in files for line in file.read_text().splitlines()]


async def test_the_training_files_hold_the_chosen_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEACHER_KEY", "sk-canary")
    async with Loopback() as server:
        run = await session(recipe(tmp_path / "run", server))
    check_books(run)
    assert (run.told["state"], run.told["kept"]) == ("complete", 40)  # the quota counts what was kept, chosen or not
    rows = pq.read_table(run.path / "rows.parquet")
    assert rows.num_rows == 40
    chosen = training(run.path)
    assert len(chosen) == len(set(chosen)) == 12
    leaf_of = dict(zip(rows["id"].to_pylist(), map(tuple, rows["leaf"].to_pylist()), strict=True))
    leaves = [leaf_of[id_] for id_ in chosen]
    assert sorted(leaves.count(leaf) for leaf in set(leaves)) == [3, 3, 3, 3]
    metrics = json.loads((run.path / "metrics.json").read_text())
    assert (metrics["diversity"]["chosen"], metrics["diversity"]["not_chosen"]) == (12, 28)
    assert metrics["diversity"]["after"]["rows"] == 12
    assert (run.path / "diversity.html").is_file()
    card = (run.path / "dataset" / "README.md").read_text()
    assert "| kept | | 12 |" in card
    assert "| kept, not chosen for these splits | diversity | 28 |" in card


async def test_a_resumed_run_chooses_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEACHER_KEY", "sk-canary")
    async with Loopback() as server:
        whole = await session(recipe(tmp_path / "whole", server))
        part = recipe(tmp_path / "part", server, usd=0.0009)
        stopped = await session(part)
        assert stopped.told["state"] == "stopped"
        again = await session(recipe(tmp_path / "part", server), run=stopped.path)
    assert again.told["state"] == "complete"
    for file in ("rows.parquet", "dataset/train.jsonl", "dataset/validation.jsonl"):
        assert (again.path / file).read_bytes() == (whole.path / file).read_bytes()


def test_a_choice_that_cannot_be_made_is_refused_before_anything_is_asked(tmp_path: Path) -> None:
    nobody = Loopback()
    nobody.port = 9  # never started: nothing is asked

    def refused(**step: object) -> str:
        with pytest.raises(InputError) as caught:
            prepare(load_recipe(recipe(tmp_path / "run", nobody, **step)))
        return str(caught.value)

    assert "no column intent" in refused(by="intent")
    assert "no column judge" in refused(score="judge")
    assert "no such embedding model" in refused(model="nothing")
    path = probe(tmp_path / "run", nobody.base_url, filters=[{"kind": "diversity", "keep": 5}, {"kind": "exact"}])
    errors = [finding.detail for finding in check(load_recipe(path)) if finding.level == "error"]
    assert any("make it the last step" in error for error in errors)
    found = [
        finding.detail for finding in check(load_recipe(recipe(tmp_path / "run", nobody))) if finding.what == "filters"
    ]
    assert "exact, diversity" in found
