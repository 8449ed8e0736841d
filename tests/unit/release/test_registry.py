"""Versions are whole or absent, numbered once, and an unproven one says so for good."""

from __future__ import annotations

import json
import multiprocessing
from datetime import UTC, datetime
from pathlib import Path

import pytest

from distill.errors import InputError
from distill.release.differ import differences
from distill.release.record import Release, Score, file_digest
from distill.release.registry import Registry


def make_release(name: str, version: int, created: str, folder: Path, **over: object) -> Release:
    (folder / "w.gguf").write_bytes(f"weights {version}".encode())
    values: dict[str, object] = {
        "name": name,
        "version": version,
        "created": created,
        "kind": "gguf",
        "weights": "w.gguf",
        "weights_digest": file_digest(folder / "w.gguf"),
        "base": "tiny",
        "template": "t",
        **over,
    }
    return Release.model_validate(values)


def add(registry: Registry, name: str = "router", **over: object) -> int:
    listed = registry.add(name, lambda v, created, folder: make_release(name, v, created, folder, **over))
    return listed.release.version


def _add_five(root: str) -> None:
    for _ in range(5):
        add(Registry(Path(root)))


def test_promotion_and_the_way_back(tmp_path: Path) -> None:
    registry = Registry(tmp_path / "releases", now=lambda: datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC))
    assert [add(registry), add(registry), add(registry)] == [1, 2, 3]
    assert registry.find("router").release.version == 3  # nothing promoted: the latest
    for version in (1, 2, 3):
        registry.promote(f"router@{version}")
    assert registry.find("router").release.version == 3
    assert registry.rollback("router").release.version == 2
    assert registry.rollback("router").release.version == 1
    with pytest.raises(InputError, match="no earlier promoted version"):
        registry.rollback("router")
    registry.promote("router@3")
    assert registry.rollback("router").release.version == 1
    assert [event["action"] for event in registry.history("router")] == [
        *["promote"] * 3,
        *["rollback"] * 2,
        "promote",
        "rollback",
    ]
    assert [listed.promoted for listed in registry.list()] == [True, False, False]
    assert registry.find("router@2").release.created == "2026-01-02T03:04:05Z"


def test_two_writers_never_share_a_number(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=_add_five, args=(str(tmp_path / "releases"),)) for _ in range(3)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(60)
        assert writer.exitcode == 0
    assert [listed.release.version for listed in Registry(tmp_path / "releases").list()] == list(range(1, 16))


def test_a_release_that_cannot_be_made_leaves_nothing(tmp_path: Path) -> None:
    registry = Registry(tmp_path / "releases")

    def breaks(version: int, created: str, folder: Path) -> Release:
        (folder / "half").write_text("x")
        raise InputError("no")

    with pytest.raises(InputError):
        registry.add("router", breaks)
    assert registry.list() == []
    assert list((tmp_path / "releases/router").iterdir()) == []
    assert add(registry) == 1


def test_an_unproven_release_is_promoted_by_force_only(tmp_path: Path) -> None:
    registry = Registry(tmp_path / "releases")
    add(registry, unproven="there is no scorecard of these weights")
    with pytest.raises(InputError, match="unproven: there is no scorecard"):
        registry.promote("router@1")
    registry.promote("router@1", force=True)
    assert registry.find("router").release.unproven is not None
    assert registry.history("router")[0]["forced"]


def test_changed_weights_are_noticed(tmp_path: Path) -> None:
    registry = Registry(tmp_path / "releases")
    add(registry)
    listed = registry.find("router")
    registry.verify(listed)
    (listed.folder / "w.gguf").write_bytes(b"other")
    with pytest.raises(InputError, match="not those that were released"):
        registry.verify(listed)


@pytest.mark.parametrize("name", ["../x", "A", "", ".x", "a/b", "a" * 65])
def test_a_name_cannot_leave_the_registry(name: str, tmp_path: Path) -> None:
    registry = Registry(tmp_path / "releases")
    with pytest.raises(InputError):
        add(registry, name)
    with pytest.raises(InputError):
        registry.find(name)
    assert not (tmp_path / "x").exists()


def test_what_is_not_there_is_told_with_the_nearest(tmp_path: Path) -> None:
    registry = Registry(tmp_path / "releases")
    add(registry)
    with pytest.raises(InputError, match="did you mean router"):
        registry.find("ruoter")
    with pytest.raises(InputError, match="router has: 1"):
        registry.find("router@2")


def test_the_difference_of_two_versions(tmp_path: Path) -> None:
    registry = Registry(tmp_path / "releases")

    def score(value: float) -> Score:
        figure = {"value": value, "low": value - 0.1, "high": value + 0.1}
        return Score(holdout="h", holdout_digest="d", items=9, system="s", metrics={"exact_match": figure})

    add(registry, score=score(0.5), training={"config": {"learning_rate": 1e-4}, "seed": 1})
    add(registry, score=score(0.9), training={"config": {"learning_rate": 2e-4}, "seed": 1})
    changes = differences(registry.find("router@1").release, registry.find("router@2").release)
    found = {(c.section, c.key): (c.before, c.after) for c in changes}
    assert found["training", "training.config.learning_rate"] == (1e-4, 2e-4)
    assert found["scores", "exact_match"] == (0.5, 0.9)
    assert ("training", "training.seed") not in found
    assert next(c.note for c in changes if c.key == "exact_match") == "intervals lie apart"
    assert differences(registry.find("router@1").release, registry.find("router@1").release) == []


def test_a_damaged_record_is_an_error_of_input(tmp_path: Path) -> None:
    registry = Registry(tmp_path / "releases")
    add(registry)
    file = registry.find("router").folder / "release.json"
    file.write_text(json.dumps({"name": "router"}))
    with pytest.raises(InputError, match="not a release"):
        registry.list()
