"""An estimate is honest: the run that follows falls inside its intervals, and pays nothing for the pilot again."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from distill.engine import open_run, prepare
from distill.engine.estimate import Estimate, estimate
from distill.engine.estimate_model import Interval
from distill.errors import InputError
from distill.recipe import load_recipe
from tests.support.loopback import Loopback
from tests.support.workspaces import probe, rehearsal

TEACHER = {
    "simulate": {"latency_s": 0.0, "prefusal": 0.06, "plength": 0.04, "pduplicate": 0.1, "p500": 0.02},
    "price": {"input": 3, "output": 15},
    "sampling": {"max_tokens": 120},
}
FILTERS = [{"kind": "refusal"}, {"kind": "exact"}, {"kind": "length", "min_chars": 40}]


def recipe_of(folder: Path, *, seed: int, target: int, **teacher: Any) -> Path:
    simulate = {**TEACHER["simulate"], "seed": seed, **teacher.pop("simulate", {})}
    path = rehearsal(folder, teacher={**TEACHER, "simulate": simulate, **teacher}, seed=seed, filters=FILTERS)
    text = path.read_text().replace("target: 12", f"target: {target}")
    path.write_text(text)
    return path


def inside(value: float, found: Interval) -> bool:
    return found.low * 0.9999 <= value <= found.high * 1.0001


async def rehearse(folder: Path, *, seed: int, target: int, pilot: int = 40) -> tuple[Estimate, dict[str, Any]]:
    path = recipe_of(folder, seed=seed, target=target)
    said = await estimate(prepare(load_recipe(path)), pilot)
    summary = await open_run(path).execute()
    return said, summary.as_json()


def hits(said: Estimate, told: dict[str, Any]) -> dict[str, bool]:
    assert said.cost_usd is not None
    assert said.per_accepted_usd is not None
    cost = told["cost_usd"] + told["reused_cost_usd"]
    slots = sum(leaf["slots"] for leaf in told["leaves"].values()) if "leaves" in told else told["planned"]
    return {
        "cost": inside(cost, said.cost_usd),
        "per row": inside(cost / told["kept"], said.per_accepted_usd),
        "slots": inside(slots, said.slots),
        "rounds": inside(told["rounds"], said.rounds),
        "accepted": inside(told["kept"], said.accepted),
    }


async def test_the_run_uses_the_pilots_answers_and_comes_near_the_estimate(tmp_path: Path) -> None:
    said, told = await rehearse(tmp_path, seed=3, target=150)
    assert said.pilot_slots == 40
    assert told["state"] == "complete"
    assert told["teachers"]["main"]["reused"] >= 36  # what failed with a 500 for good would be asked again
    assert said.simulated
    assert said.complete > 0.9
    assert said.cost_usd is not None
    assert said.cost_usd.low < said.cost_usd.high < said.cost_usd.low * 1.5
    assert sum(hits(said, told).values()) >= 4
    (spent,) = said.spending
    assert (spent.teacher, spent.step) == ("main", "answer")
    assert spent.requests.mid > 150
    assert set(said.leaves) == {"cards/lost", "cards/declined", "loans/rate", "loans/early_repayment"}
    assert said.losses["exact"].of > said.losses["length"].of - 1
    assert "interval" in said.as_json()


async def test_the_limit_that_binds_is_named(tmp_path: Path) -> None:
    path = recipe_of(tmp_path, seed=1, target=2000, limits={"requests_per_minute": 6000})
    said = await estimate(prepare(load_recipe(path)), 30)
    assert said.bound_by == "main: requests_per_minute"
    assert said.seconds is not None
    assert 2000 / 100 < said.seconds.mid < 2000 / 100 * 1.6
    # Everything comes from the store now, so that nothing can be timed.
    again = await estimate(prepare(load_recipe(path)), 30)
    assert again.seconds is None
    assert again.cost_usd == said.cost_usd


@pytest.mark.parametrize(("limits", "days"), [({"requests_per_day": 500}, 4), ({"tokens_per_day": 10_000_000}, 0)])
async def test_a_quota_by_the_day_takes_days(limits: dict[str, int], days: int, tmp_path: Path) -> None:
    path = recipe_of(tmp_path, seed=1, target=2000, limits=limits)
    said = await estimate(prepare(load_recipe(path)), 30)
    assert said.seconds is not None
    assert round(said.seconds.mid / 86_400) == days  # some 2,300 requests, the first day's at once
    assert (said.bound_by == "main: requests_per_day") == (days > 0)


async def test_other_ways_are_priced(tmp_path: Path) -> None:
    path = recipe_of(tmp_path, seed=1, target=100)
    text = path.read_text().replace(
        "teachers:\n",
        "teachers:\n  cheap:\n    provider: simulated\n    model: other\n    price: {input: 0.3, output: 1.5}\n"
        "    limits: {requests_per_minute: 60}\n",
    )
    path.write_text(text)
    said = await estimate(prepare(load_recipe(path)), 30)
    (other,) = said.alternatives
    assert other.name == "cheap in place of main"
    assert other.cost_usd is not None
    assert said.cost_usd is not None
    assert other.cost_usd.mid == pytest.approx(said.cost_usd.mid / 10, rel=1e-6)
    assert (other.accepted, other.rounds) == (said.accepted, said.rounds)
    assert said.seconds is not None
    assert other.seconds is not None
    assert said.seconds.mid < 60 < 100 < other.seconds.mid < 200  # a hundred rows and some, one a second


async def test_batches_are_half_the_price_and_take_days(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEACHER_KEY", "key")
    async with Loopback() as server:
        said = await estimate(prepare(load_recipe(probe(tmp_path, server.base_url, target=60))), 20)
    (batch,) = said.alternatives
    assert batch.name == "mode: batch"
    assert said.cost_usd is not None
    assert batch.cost_usd is not None
    assert batch.cost_usd.mid == pytest.approx(said.cost_usd.mid / 2, rel=1e-6)
    assert batch.seconds is not None
    assert batch.seconds.mid == said.rounds.mid * 86_400


async def test_a_pilot_without_any_answer_is_refused(tmp_path: Path) -> None:
    path = recipe_of(tmp_path, seed=1, target=100, simulate={"p500": 1.0}, max_attempts=1)
    with pytest.raises(InputError, match="nothing to estimate from"):
        await estimate(prepare(load_recipe(path)), 5)


@pytest.mark.heavy
def test_eight_of_ten_rehearsals_fall_inside(tmp_path: Path) -> None:
    counts: dict[str, int] = {}
    for seed in range(10):
        said, told = asyncio.run(rehearse(tmp_path / str(seed), seed=100 + seed, target=400, pilot=60))
        for name, hit in hits(said, told).items():
            counts[name] = counts.get(name, 0) + hit
    assert all(count >= 8 for count in counts.values()), counts
