from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.tiny_student import make_model, make_tokenizer


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
