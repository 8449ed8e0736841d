from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.tiny_student import CHATML, make_model, make_tokenizer


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    """Matrices this small are slower on two threads than on one."""
    import torch

    torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def _cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Where bases lie is kept in a cache of the tests' own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DISTILL_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def student(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a tiny student."""
    folder = tmp_path_factory.mktemp("student") / "tiny-llama"
    return make_tokenizer(make_model(folder))


@pytest.fixture
def tokenizer_with(tmp_path: Path) -> Callable[..., object]:
    """Makes a tokenizer with a given chat template."""
    from distill.train.student import load_tokenizer

    def make(template: str | None = CHATML, **settings: object) -> object:
        return load_tokenizer(make_tokenizer(tmp_path / "tokenizer", template, **settings))

    return make
