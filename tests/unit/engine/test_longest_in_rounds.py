"""A run whose filter keeps the longest of a group: within a round, the same after a resume."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from distill.engine import prepare
from distill.errors import InputError
from distill.filters.text import texts
from distill.recipe import load_recipe
from tests.support.loopback import Loopback
from tests.support.sessions import check_books, session
from tests.support.workspaces import probe


def recipe(folder: Path, server: Loopback, *, keep: str = "longest", usd: float = 5, **score: str) -> Path:
    alike = {"kind": "minhash", "fields": ["response"], "threshold": 0.2, "short_threshold": 0.2, "seeds": False}
    plan = {"taxonomy": "taxonomies/probe.yaml", "target": 40, "max_rounds": 1}
    return probe(
        folder,
        server.base_url,
        filters=[{**alike, "keep": keep, **score}],
        plan=plan,
        budget={"usd": usd},
        name="probe",
    )


def lengths(path: Path) -> tuple[dict[str, int], pa.Table]:
    """How long the answers of kept rows are, and the rejected rows."""
    kept, rejected = (pq.read_table(path / f"{name}.parquet") for name in ("rows", "rejected"))
    return dict(zip(kept["id"].to_pylist(), map(len, texts(kept, ("response",))), strict=True)), rejected


def shorter_survivors(path: Path) -> int:
    kept, rejected = lengths(path)
    pairs = zip(texts(rejected, ("response",)), rejected["matched_id"].to_pylist(), strict=True)
    return sum(len(text) > kept[other] for text, other in pairs)


async def test_the_longest_row_of_a_round_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEACHER_KEY", "sk-canary")
    async with Loopback() as server:
        first = await session(recipe(tmp_path, server, keep="first"))
        assert shorter_survivors(first.path), "of two rows that are alike the first may be the shorter one"
        longest = await session(recipe(tmp_path, server), run=tmp_path / "runs" / "longest")
    check_books(longest)
    kept, rejected = lengths(longest.path)
    assert kept, rejected.num_rows
    assert rejected.num_rows > 5
    assert not shorter_survivors(longest.path)


async def test_a_resumed_run_keeps_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEACHER_KEY", "sk-canary")
    async with Loopback() as server:
        whole = await session(recipe(tmp_path / "whole", server))
        stopped = await session(recipe(tmp_path / "part", server, usd=0.0009))
        assert stopped.told["state"] == "stopped"
        assert 0 < stopped.told["kept"] < whole.told["kept"]
        check_books(stopped)
        again = await session(recipe(tmp_path / "part", server), run=stopped.path)
    assert again.path == stopped.path
    for name in ("rows", "rejected"):
        file = f"{name}.parquet"
        assert (again.path / file).read_bytes() == (whole.path / file).read_bytes()


def test_a_score_that_rows_will_not_have_is_found_before_anything_is_asked(tmp_path: Path) -> None:
    nobody = Loopback()
    nobody.port = 9  # never started: nothing is asked

    def of(score: str) -> None:
        prepare(load_recipe(recipe(tmp_path, nobody, keep="best", score=score)))

    of("scores.margin")
    of("output_tokens")
    with pytest.raises(InputError, match="no column judgement"):
        of("judgement")
    with pytest.raises(InputError, match="not numbers"):
        of("teacher")
