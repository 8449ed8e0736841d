"""The task metric while training: what is kept, when training ends, and what is advised."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from distill.errors import Halted, InputError
from distill.recipe import TrainConfig
from distill.train import TrainData, TrainResult, train
from distill.train.data import Conversation
from distill.train.task import advice


def row(number: int) -> Conversation:
    turns = (
        {"role": "user", "content": f"my card was lost, please help {number}"},
        {"role": "assistant", "content": "lost"},
    )
    return Conversation(turns, f"rows.jsonl:{number}")


DATA = TrainData(tuple(row(n) for n in range(8)), tuple(row(n) for n in range(20, 23)))


class Judge:
    """Gives the scores it was told, in order, and keeps what it was shown."""

    def __init__(self, *values: float) -> None:
        self.values = list(values)
        self.shown: list[list[str]] = []

    def __call__(self, rows: Sequence[Conversation], answers: Sequence[str]) -> float:
        assert [r.where for r in rows] == [r.where for r in DATA.validation]
        self.shown.append(list(answers))
        return self.values[len(self.shown) - 1]


def trained(student: Path, out: Path, judge: Any, **watch: Any) -> TrainResult:
    settings = {"batch_size": 4, "max_steps": 6, "learning_rate": 5e-3, "dtype": "float32"}
    watched = {"metric": "exact_match", "every": 1, "max_tokens": 4, **watch}
    config = TrainConfig(model=str(student), watch=watched, **settings)
    return train(config, DATA, out, seed=1, score=judge)


def weights(out: Path) -> bytes:
    return (out / "adapter/adapter_model.safetensors").read_bytes()


def test_training_ends_when_the_metric_stops_rising_and_the_best_state_is_kept(student: Path, tmp_path: Path) -> None:
    judge = Judge(0.1, 0.5, 0.4, 0.4)
    early = trained(student, tmp_path / "early", judge, patience=2)
    assert early.facts["steps"] == 4  # the loss still fell: nothing but the metric can have ended it
    assert early.facts["task"] == {
        "metric": "exact_match",
        "best": 0.5,
        "best_step": 2,
        "scores": [[1, 0.1], [2, 0.5], [3, 0.4], [4, 0.4]],
    }
    assert "best at step 2" in early.facts["advice"]
    assert [len(answers) for answers in judge.shown] == [3, 3, 3, 3]
    two = Judge(0.1, 0.5, 0, 0, 0, 0)
    assert trained(student, tmp_path / "two", two).facts["steps"] == 6
    assert weights(tmp_path / "two") == weights(tmp_path / "early")
    assert not (tmp_path / "early/checkpoints").exists()


def test_answering_leaves_the_training_as_it_was(student: Path, tmp_path: Path) -> None:
    watched = trained(student, tmp_path / "watched", Judge(*range(6)))
    config = TrainConfig(model=str(student), batch_size=4, max_steps=6, learning_rate=5e-3, dtype="float32", watch=None)
    alone = train(config, TrainData(DATA.train), tmp_path / "alone", seed=1)
    assert watched.facts["task"]["best_step"] == 6
    assert weights(tmp_path / "watched") == weights(tmp_path / "alone")
    assert alone.facts.get("task") is None


def test_the_best_of_a_session_survives_its_interruption(student: Path, tmp_path: Path) -> None:
    whole = trained(student, tmp_path / "whole", Judge(0.1, 0.9, 0.2, 0.3, 0.4, 0.5))
    config = TrainConfig(**json.loads((tmp_path / "whole/train.json").read_bytes())["config"])
    config = config.model_copy(update={"model": str(student)})
    seen: list[int] = []

    def stop() -> bool:
        return len(seen) >= 3

    with pytest.raises(Halted):
        train(
            config,
            DATA,
            tmp_path / "two",
            seed=1,
            score=Judge(0.1, 0.9, 0.2, 0.3),
            progress=lambda p: seen.append(p.step),
            stop=stop,
        )
    rest = train(config, DATA, tmp_path / "two", seed=1, score=Judge(0.4, 0.5))
    assert rest.facts["task"]["best_step"] == 2
    assert weights(tmp_path / "two") == weights(tmp_path / "whole")
    assert whole.facts["task"]["best"] == 0.9


def test_without_rows_to_answer_there_is_no_metric(student: Path, tmp_path: Path) -> None:
    config = TrainConfig(model=str(student), watch={"metric": "exact_match"})
    with pytest.raises(InputError, match="needs validation rows"):
        train(config, TrainData(DATA.train), tmp_path, score=Judge(1.0))


@pytest.mark.parametrize(
    ("scores", "losses", "says"),
    [
        ([0.2, 0.2, 0.1], [3.0, 2.0, 1.0, 0.5], "never rose above its first score (0.200)"),
        ([0.2, 0.6, 0.4], [3.0, 2.0, 1.0, 0.5], "was best at step 1 (0.600) and fell to 0.400"),
        ([0.2, 0.6], [3.0, 2.9, 3.0, 2.95], "the loss hardly fell (3.000 to 2.950)"),
        ([0.2, 0.6], [3.0, 2.0, 1.0, 0.5], None),
        ([0.2], [3.0, 2.0, 1.0, 0.5], None),
    ],
)
def test_what_is_advised_where_loss_and_metric_part_ways(
    scores: list[float], losses: list[float], says: str | None
) -> None:
    found = advice(
        "f1", [{"step": i, "task": value} for i, value in enumerate(scores)], [{"loss": value} for value in losses]
    )
    assert found is None if says is None else says in (found or "")
