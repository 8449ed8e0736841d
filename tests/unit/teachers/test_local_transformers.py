"""The transformers engine over a tiny model: OpenAI-shaped answers, stops, limits, cancellation, crashes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from distill.errors import FailureClass, TeacherError
from distill.teachers.local.engine_transformers import TransformersEngine
from distill.teachers.reading import is_chat, read_chat
from tests.support.tiny_student import make_model, make_tokenizer


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("model")
    return make_tokenizer(make_model(place, initializer_range=0.3))


@pytest.fixture
async def engine(folder: Path) -> AsyncIterator[TransformersEngine]:
    engine = TransformersEngine(lambda: folder, concurrency=4, context=200, slots=3, dtype="float32")
    await engine.start()
    yield engine
    await engine.close()


def wire(text: str = "please help", **other: Any) -> dict[str, Any]:
    base = {"model": "tiny", "weights": "w", "max_tokens": 12, "temperature": 0.8, "top_p": 0.95, "top_k": 40}
    return {**base, "min_p": 0.05, "seed": 1, "messages": [{"role": "user", "content": text}], **other}


async def test_many_requests_each_get_their_answer(engine: TransformersEngine) -> None:
    wires = [wire(f"card {i % 5}", seed=i % 5) for i in range(20)]
    replies = await asyncio.gather(*(engine.send(w, timeout=60) for w in wires))
    readings = [read_chat(reply.body, "tiny") for reply in replies]
    assert all(is_chat(orjson.loads(reply.body)) for reply in replies)
    assert [r.text for r in readings[:5]] == [r.text for r in readings[5:10]] == [r.text for r in readings[15:]]
    assert len({r.text for r in readings}) == 5
    assert all(r.usage.input > 5 and 0 < r.usage.output <= 12 for r in readings)
    assert orjson.loads(replies[0].body)["system_fingerprint"] == "transformers float32"


async def test_max_tokens_ends_with_length(engine: TransformersEngine) -> None:
    reading = read_chat((await engine.send(wire(max_tokens=3), timeout=60)).body, "tiny")
    assert reading.finish == "length"
    assert reading.usage.output == 3


async def test_a_stop_text_ends_the_answer_and_is_not_in_it(engine: TransformersEngine) -> None:
    whole = read_chat((await engine.send(wire(max_tokens=40), timeout=60)).body, "tiny").text
    stop = whole[6:8]
    reading = read_chat((await engine.send(wire(max_tokens=40, stop=[stop]), timeout=60)).body, "tiny")
    assert reading.text == whole[: whole.index(stop)]
    assert reading.finish == "stop"


async def test_what_does_not_fit_or_is_not_known_is_refused(engine: TransformersEngine) -> None:
    reply = await engine.send(wire("word " * 300), timeout=60)
    assert reply.status == 400
    assert orjson.loads(reply.body)["error"]["code"] == "context_length_exceeded"
    reply = await engine.send(wire(mirostat=2), timeout=60)
    assert reply.status == 400
    assert b"mirostat" in reply.body
    assert (await engine.send(wire(), timeout=60)).status == 200  # and the engine goes on


async def test_a_schema_is_put_into_words(engine: TransformersEngine) -> None:
    plain = read_chat((await engine.send(wire(), timeout=60)).body, "tiny").usage.input
    schema = {"type": "json_schema", "json_schema": {"name": "a", "schema": {"type": "object"}}}
    asked = read_chat((await engine.send(wire(response_format=schema), timeout=60)).body, "tiny").usage.input
    assert asked > plain + 20


async def test_a_timeout_frees_the_slot(engine: TransformersEngine) -> None:
    async def short() -> FailureClass | None:
        try:
            await engine.send(wire("a b c", max_tokens=150), timeout=0.001)
        except TeacherError as error:
            return error.failure
        return None

    assert set(await asyncio.gather(*(short() for _ in range(9)))) == {FailureClass.TIMEOUT}
    assert (await engine.send(wire(max_tokens=2), timeout=60)).status == 200


async def test_a_crash_reaches_everybody_who_waits(engine: TransformersEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise MemoryError("no memory for the batch")

    monkeypatch.setattr(engine._batch, "step", broken)
    results = await asyncio.gather(*(engine.send(wire(seed=i), timeout=60) for i in range(5)), return_exceptions=True)
    failures = [result.failure for result in results if isinstance(result, TeacherError)]
    assert failures == [FailureClass.CRASHED] * 5
    assert "no memory" in str(results[0])
    with pytest.raises(TeacherError, match="no memory"):
        await engine.send(wire(), timeout=60)


async def test_close_twice_and_answers_nobody_after(folder: Path) -> None:
    engine = TransformersEngine(lambda: folder, concurrency=2, context=200, dtype="float32")
    await engine.start()
    await engine.close()
    await engine.close()
    with pytest.raises(TeacherError) as caught:
        await engine.send(wire(), timeout=1)
    assert caught.value.failure is FailureClass.CRASHED
