from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from distill.engine.check import check
from distill.engine.session import teachers_used, width
from distill.errors import InputError
from distill.recipe import Recipe, load_recipe
from tests.support.workspaces import rehearsal

SIM = {"provider": "simulated", "model": "m", "simulate": {"latency_s": 0}}


def recipe(folder: Path, groups: dict[str, Any], **teachers: Any) -> Recipe:
    path = rehearsal(folder)
    value = yaml.safe_load(path.read_text())
    value["teachers"] = {"a": SIM, "b": {**SIM, "max_concurrency": 10}, "c": SIM, **teachers}
    value["teacher_groups"] = groups
    path.write_text(yaml.safe_dump(value))
    return load_recipe(path)


def test_a_group_stands_where_a_teacher_does(tmp_path: Path) -> None:
    loaded = recipe(tmp_path, {"main": {"share": {"a": "70 %", "b": "30%"}}})
    assert loaded.teacher_groups["main"].share == {"a": 0.7, "b": 0.3}
    assert teachers_used(loaded) == ["a", "b"]
    assert width(loaded) == (64 + 10) * 5 // 4 + 8
    found = {finding.what: finding.detail for finding in check(loaded)}
    assert found["teacher_groups.main"] == "a 70%, b 30%; one in place of another"


@pytest.mark.parametrize(
    ("group", "order"),
    [
        ({"share": {"a": 1, "b": 2, "c": 1}}, ("a", "b", "c")),
        ({"share": {"a": 1}, "fallback": ["c", "b"]}, ("a", "c", "b")),
        ({"share": {"a": 1, "b": 1}, "fallback": ["c", "a"]}, ("a", "c")),
        ({"share": {"a": 1, "b": 1}, "fallback": []}, ("a",)),
    ],
)
def test_who_stands_in(tmp_path: Path, group: dict[str, Any], order: tuple[str, ...]) -> None:
    assert recipe(tmp_path, {"main": group}).teacher_groups["main"].order("a") == order


@pytest.mark.parametrize(
    ("group", "said"),
    [
        ({"share": {"a": 1, "x": 1}}, "teacher_groups.main.share: no such teacher: 'x'"),
        ({"share": {"a": 1}, "fallback": ["bb"]}, "teacher_groups.main.fallback: no such teacher: 'bb'; did you mean"),
        ({"share": {"a": 1}, "fallback": ["b", "b"]}, "stands there twice"),
        ({"share": {}}, "at least one"),
        ({"share": {"a": 0}}, "greater than 0"),
        ({"share": {"a": "most %"}}, "not a share"),
        ({"shares": {"a": 1}}, "did you mean share?"),
    ],
)
def test_a_mistake_is_named(tmp_path: Path, group: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError) as caught:
        recipe(tmp_path, {"main": group})
    assert said in str(caught.value)


def test_names_are_not_shared_and_batches_do_not_move(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="has this name already"):
        recipe(tmp_path, {"main": {"share": {"b": 1}}, "a": {"share": {"b": 1}}})
    with pytest.raises(InputError, match="asked online"):
        recipe(tmp_path, {"main": {"share": {"d": 1}}}, d={"provider": "openai", "model": "m", "mode": "batch"})


def test_groups_decide_the_rows_and_patience_does_not(tmp_path: Path) -> None:
    one = recipe(tmp_path, {"main": {"share": {"a": 1, "b": 1}}})
    other = recipe(tmp_path, {"main": {"share": {"a": 1, "b": 2}}})
    patient = recipe(tmp_path, {"main": {"share": {"a": 1, "b": 1}}}, a={**SIM, "patience_s": 7})
    assert one.digest != other.digest
    assert one.digest == patient.digest
    assert Recipe.model_validate({**one.public(), "hook": None}).digest == one.digest
