"""A run whose filter asks a teacher: paid by the run, the same after a resume, pending where the money ends."""

from __future__ import annotations

import json

import pyarrow.parquet as pq
import pytest

from distill.errors import InputError
from tests.support.loopback import Loopback
from tests.support.sessions import check_books, session
from tests.support.workspaces import probe

VERDICT = {"teacher": "judge", "zone": [0.001, 99.0]}


def chain(**verdict):
    return [{"kind": "decontaminate", "against": [{"path": "eval.jsonl", "field": "q"}], "verdict": VERDICT | verdict}]


@pytest.fixture
def workspace(tmp_path, monkeypatch):
    monkeypatch.setenv("TEACHER_KEY", "sk-canary")
    # A word that the practice teacher's answers share, so that every row has a score to be doubted.
    question = "Write one customer message about cards lost declined loans rate early repayment calm angry terse"
    (tmp_path / "eval.jsonl").write_text(json.dumps({"q": question}) + "\n")
    return tmp_path


def recipe(folder, server, **more):
    judge = {
        "provider": "openai",
        "base_url": server.base_url,
        "model": "judge",
        "api_key": "${TEACHER_KEY}",
        "price": {"input": 1, "output": 1},
    }
    main = judge | {"model": "mock", "sampling": {"temperature": 0.8, "max_tokens": 64}}
    return probe(folder, server.base_url, target=12, teachers={"main": main, "judge": judge}, **more)


async def test_verdicts_are_asked_through_the_gateway_and_replayed(workspace):
    async with Loopback(record=True) as server:
        path = recipe(workspace, server, filters=chain())
        ended = await session(path)
        assert ended.code == 0
        asked = [body for _, body in server.received if b'"judge"' in body]
        assert asked, "the filter's teacher was asked"
        check_books(ended)
        assert ended.told["cost_by_fate_usd"]["verdicts"] > 0
        fates = pq.read_table(ended.path / "rejected.parquet").column("reason").to_pylist()
        assert "verdict" in fates, "the practice teacher calls some of them the same"
        sent = server.stats()["requests"]
        again = await session(path, run=workspace / "runs" / "second")
        assert server.stats()["requests"] == sent, "another run with the same rows asks nothing"
        assert pq.read_table(again.path / "rows.parquet").column("id").to_pylist() == (
            pq.read_table(ended.path / "rows.parquet").column("id").to_pylist()
        )
        check_books(again)


async def test_a_recipe_names_its_judge(workspace):
    async with Loopback() as server:
        with pytest.raises(InputError, match="no such teacher: 'jugde'; did you mean judge"):
            await session(recipe(workspace, server, filters=chain(teacher="jugde")))
