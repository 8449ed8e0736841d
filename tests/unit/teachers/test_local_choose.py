"""`auto`: the faster engine is kept and remembered; what cannot run is passed over."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import orjson
import pytest

from distill.errors import FailureClass, InputError, RunError, TeacherError
from distill.teachers.base import Reply
from distill.teachers.local.choose import choose
from distill.teachers.local.engine import Engine


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


class Paced:
    """An engine of known speed: a request moves the clock by `seconds`."""

    slots = 4

    def __init__(self, name: str, seconds: float, clock: Clock, fault: Exception | None = None) -> None:
        self.name, self.seconds, self.clock, self.fault = name, seconds, clock, fault
        self.started = self.closed = self.asked = 0

    async def start(self) -> None:
        self.started += 1
        if isinstance(self.fault, RunError):
            raise self.fault

    async def send(self, wire: Mapping[str, Any], *, timeout: float) -> Reply:  # noqa: ASYNC109 - part of the contract
        self.asked += 1
        if isinstance(self.fault, TeacherError):
            raise self.fault
        self.clock.now += self.seconds
        await asyncio.sleep(0)
        return Reply(200, orjson.dumps({"usage": {"completion_tokens": 10}}))

    async def close(self) -> None:
        self.closed += 1


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISTILL_CACHE", str(tmp_path))


async def pick(llama: Paced, batch: Paced, concurrency: int = 16, key: str = "m") -> Engine:
    makers: dict[str, Callable[[], Engine]] = {"llama.cpp": lambda: llama, "transformers": lambda: batch}

    def load(count: int) -> list[dict[str, Any]]:
        return [{"n": i} for i in range(count)]

    return await choose(makers, host_key=key, concurrency=concurrency, load=load, clock=llama.clock)


async def test_the_faster_one_is_kept_and_the_other_closed(caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    llama, batch = Paced("llama.cpp", 0.5, clock), Paced("transformers", 0.2, clock)
    with caplog.at_level(logging.INFO, logger="distill.teachers.local"):
        assert await pick(llama, batch) is batch
    assert (llama.closed, batch.closed) == (1, 0)
    assert "transformers 50.0" in caplog.text


async def test_the_choice_is_remembered_for_model_and_concurrency() -> None:
    clock = Clock()
    await pick(Paced("llama.cpp", 0.5, clock), Paced("transformers", 0.2, clock))
    llama, batch = Paced("llama.cpp", 0.5, clock), Paced("transformers", 0.2, clock)
    assert await pick(llama, batch) is batch
    assert (llama.started, batch.started, batch.asked) == (0, 1, 0)
    other = Paced("llama.cpp", 0.1, clock)
    assert await pick(other, Paced("transformers", 0.2, clock), key="another") is other


async def test_few_requests_at_once_go_to_llama_unmeasured() -> None:
    clock = Clock()
    llama, batch = Paced("llama.cpp", 9.0, clock), Paced("transformers", 0.1, clock)
    assert await pick(llama, batch, concurrency=2) is llama
    assert llama.asked == batch.started == 0


@pytest.mark.parametrize(
    "fault", [RunError("no server"), TeacherError(FailureClass.CRASHED, "illegal instruction")], ids=["start", "crash"]
)
async def test_an_engine_that_fails_is_passed_over(fault: Exception) -> None:
    clock = Clock()
    llama, batch = Paced("llama.cpp", 0.1, clock, fault), Paced("transformers", 5.0, clock)
    assert await pick(llama, batch) is batch
    assert llama.closed == 1
    # What was not compared is not remembered.
    assert await pick(Paced("llama.cpp", 0.1, clock), Paced("transformers", 5.0, clock)) is not batch


async def test_a_remembered_engine_that_no_longer_starts_gives_way() -> None:
    clock = Clock()
    await pick(Paced("llama.cpp", 0.1, clock), Paced("transformers", 0.2, clock))
    batch = Paced("transformers", 0.2, clock)
    assert await pick(Paced("llama.cpp", 0.1, clock, RunError("gone")), batch) is batch


async def test_none_that_runs_is_an_error() -> None:
    clock = Clock()
    broken = RunError("no server"), RunError("no memory")
    with pytest.raises(RunError, match="no server"):
        await pick(Paced("llama.cpp", 1, clock, broken[0]), Paced("transformers", 1, clock, broken[1]))


async def test_an_engine_that_cannot_run_the_model_is_not_measured() -> None:
    clock = Clock()
    batch = Paced("transformers", 0.2, clock)

    def refuse() -> Engine:
        raise InputError("needs a GGUF file")

    chosen = await choose(
        {"llama.cpp": refuse, "transformers": lambda: batch}, host_key="m", concurrency=16, load=lambda n: []
    )
    assert chosen is batch
    assert batch.asked == 0
