"""What is served is what was measured."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from distill.cli.serve import serve
from distill.errors import InputError
from distill.evaluate import Student
from distill.evaluate.holdout import Holdout, Item
from distill.release.make import add_release
from distill.release.registry import Registry
from distill.release.serving import Sampling, TooLong, open_backends
from tests.unit.release.conftest import teach


def test_adapters_share_a_base_and_answer_as_they_were_scored(
    student: Path, lora: Path, holdout: Holdout, tmp_path: Path
) -> None:
    other = Holdout(tuple(Item(i.id, i.messages, f"no {i.id}") for i in holdout.items))
    teach(student, tmp_path / "second", other, adapter="lora")
    registry = Registry(tmp_path / "releases")
    for name, out in (("first", lora), ("second", tmp_path / "second")):
        add_release(registry, name, out, base=str(student), force=True)
    releases = [registry.find("first"), registry.find("second")]

    async def ask() -> dict[str, list[str]]:
        async with open_backends(releases, base=str(student)) as backends:
            assert len({id(b.engine) for b in backends.values()}) == 1  # type: ignore[attr-defined]
            jobs = {
                name: [asyncio.create_task(b.answer(i.messages, Sampling(12))) for i in holdout.items]
                for name, b in backends.items()
            }
            with pytest.raises(TooLong):
                await backends["first"].answer(holdout.items[0].messages, Sampling(100_000))
            return {name: [(await task).text for task in tasks] for name, tasks in jobs.items()}

    found = asyncio.run(ask())
    for name, out in (("first", lora), ("second", tmp_path / "second")):
        scored = Student(str(student), out, max_tokens=12, latency_items=0).generate(holdout.items).predictions
        assert found[name] == [prediction.text for prediction in scored]
    assert found["first"] != found["second"]


def test_another_base_is_refused(student: Path, lora: Path, tmp_path: Path) -> None:
    from tests.support.tiny_student import make_model, make_tokenizer

    registry = Registry(tmp_path / "releases")
    add_release(registry, "first", lora, base=str(student), force=True)
    wrong = make_tokenizer(make_model(tmp_path / "wrong", initializer_range=0.5))

    async def ask() -> None:
        async with open_backends([registry.find("first")], base=str(wrong)):
            pass

    with pytest.raises(InputError, match="not the base that first@1 was trained on"):
        asyncio.run(ask())


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"host": "0.0.0.0"}, "--allow-remote"),
        ({"host": "example.org"}, "--allow-remote"),
        ({"host": "0.0.0.0", "allow_remote": True}, "DISTILL_SERVE_KEY"),
    ],
)
def test_beyond_this_machine_only_by_choice_and_with_a_key(
    given: dict[str, Any], says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DISTILL_SERVE_KEY", raising=False)
    options: dict[str, Any] = {
        "host": "127.0.0.1", "port": 0, "base": None, "context": 512, "max_tokens": 8,
        "allow_remote": False, "force": False, "json": False,
    }  # fmt: skip
    with pytest.raises(InputError, match=says):
        serve(["router"], **{**options, **given})
