"""An evaluation of a recipe: its holdout stays what it was, its judges are asked through the gateway, its gates can
hold."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from distill.cli.eval import Further, evaluate_run
from distill.cli.proving import baseline_in, freeze_holdout
from distill.cli.train import train_run
from distill.errors import InputError
from distill.evaluate.check import check_evaluation
from distill.evaluate.holdout import read_holdout
from distill.recipe import Recipe, load_recipe
from distill.release import Registry
from distill.release.record import Release, Score
from tests.support.workspaces import rehearsal


def recipe(folder: Path, *, answers: str = "12", more: dict[str, Any] | None = None, **evaluate: Any) -> Recipe:
    rows = [
        {"id": f"q{n}", "messages": [{"role": "user", "content": f"question {n}"}], "answer": answer, **(more or {})}
        for n, answer in enumerate(answers)
    ]
    (folder / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    section = {"holdout": "test.jsonl", "metrics": ["exact_match"], "teacher": "main", **evaluate}
    return load_recipe(rehearsal(folder, evaluate=section))


def findings(of: Recipe, **options: Any) -> dict[str, str]:
    return {f"{found.level} {found.what}": found.detail for found in check_evaluation(of, **options)}


def test_a_judge_is_asked_through_the_gateway_and_the_holdout_is_frozen(tmp_path: Path) -> None:
    found = recipe(tmp_path, metrics=["exact_match", "judge", "judge_pairwise"], judge="main")
    result, code = evaluate_run(found, tmp_path / "runs/probe-1", quiet=True)
    assert code == 0
    assert 1 <= result["metrics"]["judge"] <= 5
    assert result["metrics"]["judge_pairwise"] == 0.5
    assert result["holdout_version"] == 1
    assert (tmp_path / ".distill/answers.sqlite").is_file()


def test_a_changed_holdout_is_refused_unless_it_is_meant(tmp_path: Path) -> None:
    freeze_holdout(recipe(tmp_path))
    changed = recipe(tmp_path, answers="13")
    for attempt in (lambda: freeze_holdout(changed), lambda: evaluate_run(changed, tmp_path / "runs/a", quiet=True)):
        with pytest.raises(InputError, match=r"1 changed \(q1\)"):
            attempt()
    with pytest.raises(InputError, match="is not what it was"):
        train_run(changed, tmp_path / "runs/a", quiet=True)
    result, _ = evaluate_run(changed, tmp_path / "runs/a", quiet=True, further=Further(new_holdout=True))
    assert result["holdout_version"] == 2


@pytest.mark.parametrize(
    ("evaluate", "says"),
    [
        ({"gates": ["exact_match >= 1.2"]}, "can never hold"),
        ({"metrics": ["judge"], "gates": ["judge >= 6"]}, "can never hold\n  the value lies between 1 and 5"),
        ({"gates": ["rouge_l >= 0.5"]}, "no such metric"),
        ({"gates": ["p95_ms <= 800"], "latency_items": 0}, "latency is not measured"),
        ({"gates": ["p95_ms <= -1"]}, "can never hold"),
        ({"gates": ["leaf_drop(exact_match, release:probe@1) <= 0.03"]}, "no such release"),
        ({"metrics": ["pass_at_k"]}, "no item has `tests`"),
        ({"metrics": ["refusal"]}, "no item is marked"),
        ({"metrics": ["judge:rubric=none.j2"]}, "none.j2"),
        ({"metrics": ["judge:teacher=mian"]}, "no such teacher: mian"),
    ],
)
def test_what_cannot_be_met_is_found_by_the_check(evaluate: dict[str, Any], says: str, tmp_path: Path) -> None:
    said = findings(recipe(tmp_path, **evaluate), baseline=baseline_in(tmp_path))
    assert says in said["error evaluate"]


def test_gates_that_can_be_met_pass_the_check(tmp_path: Path) -> None:
    gates = ["exact_match >= 1", "p95_ms <= 800", "usd_per_1k <= 2", "judge >= 4.5"]
    said = findings(recipe(tmp_path, metrics=["exact_match", "judge"], gates=gates))
    assert said["ok gates"] == ", ".join(gates)
    assert not any(name.startswith("error") for name in said)


def test_a_release_is_what_no_leaf_may_fall_behind(tmp_path: Path) -> None:
    gate = "leaf_drop(exact_match, release:probe@1) <= 0.03"
    found = recipe(tmp_path, more={"leaf": "cards/lost"}, gates=[gate])
    digest = read_holdout(tmp_path / "test.jsonl").digest
    release(tmp_path, digest, {"cards/lost": {"n": 2, "exact_match": 1.0}})
    assert "ok gates" in findings(found, baseline=baseline_in(tmp_path))
    result, code = evaluate_run(found, tmp_path / "runs/a", quiet=True)
    (said,) = result["gates"]
    assert (code, said["passed"], said["value"], said["short"]) == (4, False, 1.0, pytest.approx(0.97))
    assert said["note"] == "cards/lost, 2 items, the worst of 1 against probe@1"
    release(tmp_path, "another", {})
    other = recipe(tmp_path, more={"leaf": "cards/lost"}, gates=[gate.replace("@1", "@2")])
    assert "scored on another holdout" in findings(other, baseline=baseline_in(tmp_path))["error evaluate"]


def release(workspace: Path, holdout_digest: str, per_leaf: dict[str, dict[str, float]]) -> None:
    """A released version with a score."""
    figures = {"exact_match": {"value": 1.0, "low": 1.0, "high": 1.0}}
    score = Score(
        holdout="test.jsonl",
        holdout_digest=holdout_digest,
        items=2,
        system="student",
        metrics=figures,
        per_leaf=per_leaf,
    )

    def make(version: int, created: str, folder: Path) -> Release:
        (folder / "adapter").mkdir()
        about = {"kind": "adapter", "weights": "adapter", "weights_digest": "d", "base": "tiny", "template": "t"}
        return Release.model_validate(
            {"name": "probe", "version": version, "created": created, "score": score, **about}
        )

    Registry(workspace / "releases").add("probe", make)


def test_programs_are_not_run_by_the_way(tmp_path: Path) -> None:
    found = recipe(tmp_path, metrics=["pass_at_k"], more={"tests": "assert True"})
    assert "say --allow-code" in findings(found)["warn metric pass_at_k"]
    assert "say --allow-code" in findings(found, allow_code=False)["error metric pass_at_k"]
    with pytest.raises(InputError, match="say --allow-code"):
        evaluate_run(found, tmp_path / "runs/a", quiet=True)


def test_figures_beside_the_metrics_can_be_gated(tmp_path: Path) -> None:
    general = [{"messages": [{"role": "user", "content": "capital of France?"}], "answer": "Paris"}]
    (tmp_path / "general.jsonl").write_text(json.dumps(general[0]) + "\n")
    told = {"general": "general.jsonl", "systems": {"before": "run:probe-1"}, "gates": ["forgetting <= 0.05"]}
    said = findings(recipe(tmp_path, **told))
    assert (said["ok general set"], said["ok system before"]) == ("1 items", "run probe-1")
    assert said["ok gates"] == "forgetting <= 0.05"
    assert "no such metric" in findings(recipe(tmp_path, gates=["forgetting <= 0.05"]))["error evaluate"]
    unnamed = recipe(tmp_path, systems={"live": "http://127.0.0.1:1/v1"})
    assert "which model of http://127.0.0.1:1/v1?" in findings(unnamed)["error evaluate"]
    without = recipe(tmp_path, general="general.jsonl", base=False)
    assert "set base: true" in findings(without)["error evaluate"]
