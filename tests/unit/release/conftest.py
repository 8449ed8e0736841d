from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from distill.evaluate.holdout import Holdout, Item
from distill.recipe import TrainConfig
from distill.train import TrainData, train
from distill.train.data import Conversation
from tests.support.tiny_student import make_model, make_tokenizer

WORDS = ("lost", "stolen", "found", "late")


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    """Matrices this small are slower on two threads than on one."""
    import torch

    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def student(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a tiny student."""
    folder = tmp_path_factory.mktemp("student") / "tiny-llama"
    return make_tokenizer(make_model(folder))


@pytest.fixture(scope="session")
def holdout() -> Holdout:
    """What the adapters below are trained to answer."""
    items = [Item(w, ({"role": "user", "content": f"my card was {w}"},), json.dumps({"i": w})) for w in WORDS]
    return Holdout(tuple(items), "cards.jsonl")


def teach(student: Path, out: Path, holdout: Holdout, **over: Any) -> Path:
    """A training's output folder: an adapter that answers the holdout."""
    rows = [Conversation((*i.messages, {"role": "assistant", "content": i.answer}), i.id) for i in holdout.items]
    settings = {"batch_size": 8, "max_steps": 60, "learning_rate": 5e-3, "schedule": "linear", "dtype": "float32"}
    config = TrainConfig.model_validate({"model": str(student), **settings, **over})
    train(config, TrainData(tuple(rows) * 4), out, seed=1)
    return out


@pytest.fixture(scope="session")
def lora(student: Path, holdout: Holdout, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return teach(student, tmp_path_factory.mktemp("lora"), holdout, adapter="lora")


@pytest.fixture(scope="session")
def qlora(student: Path, holdout: Holdout, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return teach(student, tmp_path_factory.mktemp("qlora"), holdout, adapter="qlora")
