"""An estimate of a recipe whose slots are shared by two teachers knows what each of them will cost."""

from __future__ import annotations

from pathlib import Path

import yaml

from distill.engine import prepare
from distill.engine.estimate import estimate
from distill.recipe import load_recipe
from tests.support.workspaces import rehearsal


async def test_each_teacher_of_a_group_is_estimated_by_its_share(tmp_path: Path) -> None:
    path = rehearsal(tmp_path)
    value = yaml.safe_load(path.read_text())
    each = {"provider": "simulated", "simulate": {"latency_s": 0}, "sampling": {"max_tokens": 64}}
    value["teachers"] = {
        "a": {**each, "model": "dear", "price": {"input": 10, "output": 10}},
        "b": {**each, "model": "cheap", "price": {"input": 1, "output": 1}},
    }
    value["teacher_groups"] = {"main": {"share": {"a": "30 %", "b": "70 %"}}}
    value["plan"]["target"] = 200
    path.write_text(yaml.safe_dump(value))
    said = await estimate(prepare(load_recipe(path)), 40)
    spent = {each.teacher: each for each in said.spending}
    assert set(spent) == {"a", "b"}
    assert abs(spent["a"].requests.mid - 60) < 15
    assert abs(spent["b"].requests.mid - 140) < 15
    assert spent["a"].cost_usd is not None
    assert spent["b"].cost_usd is not None
    assert spent["a"].cost_usd.mid > 2 * spent["b"].cost_usd.mid
