"""A rehearsal plays the whole recipe, crashes included, and leaves the real store and runs alone."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from distill.engine.rehearse import Rehearsal, parse_plan, rehearsed
from distill.errors import InputError
from distill.recipe import load_recipe
from tests.support.workspaces import probe


def test_a_plan_is_read() -> None:
    plan = parse_plan("latency=2s, rpm=500,p429=0.02,crash=3")
    assert plan.behaviour == {"latency_s": 2.0, "requests_per_minute": 500.0, "p429": 0.02}
    assert plan.crashes == 3
    assert parse_plan("latency=250ms").behaviour == {"latency_s": 0.25}
    assert parse_plan("").crashes == 0


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("latncy=2", "no such thing"),
        ("latency=fast", "not a number"),
        ("rpm=5s", "not a number"),
        ("p429=2", "p429: Input should be less"),
        ("speed=0", "speed"),
    ],
)
def test_a_wrong_plan_is_refused_with_its_reason(text: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        parse_plan(text)


def test_the_recipes_own_prices_and_limits_are_rehearsed_without_its_key(tmp_path: Path) -> None:
    path = probe(tmp_path, "http://127.0.0.1:1/v1", teacher={"mode": "batch", "limits": {"requests_per_minute": 90}})
    recipe = rehearsed(load_recipe(path), parse_plan("latency=1s"))
    (teacher,) = recipe.teachers.values()
    assert teacher.provider == "simulated"
    assert teacher.api_key is None
    assert teacher.base_url is None
    assert teacher.mode == "online"
    assert teacher.limits.requests_per_minute == 90
    assert teacher.price is not None
    assert float(teacher.price.output) == 0.60


def test_a_rehearsal_with_a_crash_ends_complete_and_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TEACHER_KEY")  # a rehearsal needs none
    path = probe(tmp_path, "http://127.0.0.1:1/v1", target=120)
    rehearsal = Rehearsal(path, parse_plan("latency=2s,rpm=1200,p429=0.02,crash=1"))
    assert rehearsal.speed == 12.5  # 16 at once in 2 s each, which this machine can do faster
    summary = asyncio.run(rehearsal.execute())
    assert summary.state == "complete"
    assert summary.simulated
    assert summary.counts["kept"] == 120
    assert len(rehearsal.crashes) == 1
    assert rehearsal.crashes[0].requests >= 30
    assert summary.resumed_answers >= rehearsal.crashes[0].requests - rehearsal.crashes[0].in_flight - 5
    assert summary.cost_usd > 0
    assert summary.run == tmp_path / "rehearsals/probe-1/run"
    teachers = set(pq.read_table(summary.run / "rows.parquet")["teacher"].to_pylist())
    assert teachers == {"main"}
    assert "simulated" in (summary.run / "dataset/README.md").read_text()
    # Nothing of it stands where real answers and runs do.
    assert not (tmp_path / ".distill").exists()
    assert not (tmp_path / "runs").exists()
    assert Rehearsal(path, parse_plan("")).folder.name == "probe-2"
