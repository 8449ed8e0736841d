"""Curves as TensorBoard event files, where the package is installed."""

from __future__ import annotations

from pathlib import Path

import pytest

from distill.errors import InputError
from distill.train.board import board


def test_the_curves_can_be_read_back(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    write = board(tmp_path)
    for step in (1, 2, 3):
        write(step, {"step": step, "loss": 3.0 / step, "learning_rate": 1e-3, "grad_norm": None, "seconds": 1.0})
    write(3, {"step": 3, "epoch": 1.0, "validation_loss": 1.5})
    write(3, {"step": 3, "exact_match": 0.25})
    found = EventAccumulator(str(tmp_path)).Reload()
    assert set(found.Tags()["scalars"]) == {
        "train/loss",
        "train/learning_rate",
        "validation/validation_loss",
        "task/exact_match",
    }
    assert [(event.step, event.value) for event in found.Scalars("train/loss")] == [(1, 3.0), (2, 1.5), (3, 1.0)]


def test_without_the_package_the_way_to_get_it_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("distill.train.board.find_spec", lambda _: None)
    with pytest.raises(InputError, match=r"train\.tensorboard: needs the package tensorboard") as caught:
        board(tmp_path)
    assert "distill[tensorboard]" in str(caught.value)
