"""The embedded models themselves: conversion, tokenizers, both engines, on real weights.

Needs the models in the cache, or an index to pull them from. Minutes on two cores.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from distill import models
from distill.errors import FailureClass, TeacherError
from distill.recipe import TeacherConfig
from distill.teachers import Message, Request, SamplingParams
from distill.teachers.local import LocalTeacher
from distill.teachers.local.server import LlamaServer

pytestmark = pytest.mark.heavy

STUDENT = "smollm2-135m-instruct"
TEXTS = [
    "What is the capital of France?",
    "I've lost my card — 1234 5678!  It's  gone\n\n\tThanks",
    "naïve café résumé ÄÖÜß 日本語 🙂",
    '{"intent": "lost_card", "urgency": 3}',
    "<|im_start|>user\nhi<|im_end|>\n",
    "  leading spaces and    many",
    "can't won't I'LL they're 3.14 $1,299.00",
    "a\u00a0b\u2028c",
]
TALKS = [
    [{"role": "user", "content": "Hi"}],
    [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Yes?"},
        {"role": "user", "content": "Bye"},
    ],
]
SCHEMA = {
    "type": "object",
    "properties": {"intent": {"enum": ["lost", "stolen"]}, "count": {"type": "integer"}},
    "required": ["intent", "count"],
    "additionalProperties": False,
}


def child_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/task/{pid}/children").read_text("ascii").split()[0])


def request(text: str, schema: dict[str, Any] | None = None, **params: Any) -> Request:
    return Request("t", (Message("user", text),), SamplingParams(**{"max_tokens": 40, **params}), schema)


@pytest.mark.parametrize("name", [STUDENT, "qwen2.5-coder-0.5b-instruct"])
async def test_the_converted_folder_is_the_gguf(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Made anew in an empty cache; same token ids, same chat text, same next-token probabilities as llama.cpp."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    weights = models.pull(name)
    cache = tmp_path / "models" / name
    cache.mkdir(parents=True)
    for file in (weights, weights.with_name("checked.json")):
        os.link(file, cache / file.name) if os.stat(file).st_dev == os.stat(cache).st_dev else shutil.copy(file, cache)
    monkeypatch.setenv("DISTILL_CACHE", str(tmp_path))
    folder = models.folder(name)
    assert folder.is_relative_to(tmp_path)
    for file in folder.glob("*.json"):
        assert str(tmp_path) not in file.read_text("utf-8")
        assert "name_or_path" not in file.read_text("utf-8")

    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    assert AutoModelForCausalLM.from_pretrained(folder, dtype="auto").dtype == torch.bfloat16
    assert tokenizer.eos_token == "<|im_end|>"
    flags = {"--parallel": "1", "--ctx-size": "1024", "--threads": "2", "--threads-batch": "2", "--cache-ram": "0"}
    arguments = [piece for pair in flags.items() for piece in pair]
    server = LlamaServer(["--model", str(weights), "--alias", "m", *arguments])
    await server.start()
    try:
        headers = {"Authorization": f"Bearer {server.key}"}
        async with aiohttp.ClientSession(f"http://127.0.0.1:{server.port}", headers=headers) as session:

            async def post(path: str, **body: Any) -> Any:
                async with session.post(path, json=body) as reply:
                    return await reply.json()

            for text in TEXTS:
                theirs = await post("/tokenize", content=text, add_special=False, parse_special=True)
                assert tokenizer(text, add_special_tokens=False).input_ids == theirs["tokens"]
            for talk in TALKS:
                theirs = await post("/apply-template", messages=talk)
                ours = tokenizer.apply_chat_template(talk, add_generation_prompt=True, tokenize=False)
                assert ours == theirs["prompt"]
            prompt = "The capital of France is"
            theirs = await post("/completion", prompt=prompt, n_predict=1, temperature=0, n_probs=5)
            with torch.inference_mode():
                ours = model(**tokenizer(prompt, return_tensors="pt")).logits[0, -1].log_softmax(-1)
            for candidate in theirs["completion_probabilities"][0]["top_logprobs"]:
                assert abs(float(ours[candidate["id"]]) - candidate["logprob"]) < 0.35
    finally:
        server.stop()


@pytest.mark.parametrize("engine", ["llama.cpp", "transformers"])
async def test_an_engine_answers(engine: str) -> None:
    models.pull(STUDENT)
    teacher = LocalTeacher(TeacherConfig(provider="local", model=STUDENT, engine=engine, max_concurrency=4))  # type: ignore[arg-type]
    await teacher.start()
    try:
        asks = [teacher.wire(request("Write one short sentence about cats.", temperature=0.9), i) for i in range(6)]
        replies = await asyncio.gather(*(teacher.send(wire, timeout=120) for wire in asks))
        readings = [teacher.read(reply.body) for reply in replies]
        assert all(teacher.failure(reply) is None for reply in replies)
        assert len({reading.text for reading in readings}) >= 5
        assert all(reading.usage.input > 20 and 0 < reading.usage.output <= 40 for reading in readings)
        assert any("cat" in reading.text.lower() or "feline" in reading.text.lower() for reading in readings)
        cut = teacher.read(
            (await teacher.send(teacher.wire(request("Tell a story.", max_tokens=5), 0), timeout=60)).body
        )
        assert cut.finish == "length"
        refused = teacher.failure(await teacher.send(teacher.wire(request("word " * 6000), 0), timeout=60))
        assert refused is not None
        assert refused.failure is FailureClass.CONTEXT
        if engine == "llama.cpp":  # held by grammar, whatever the model would have liked to say
            wires = [
                teacher.wire(request("Give me JSON.", SCHEMA, temperature=1.0, max_tokens=60), i) for i in range(4)
            ]
            for reply in await asyncio.gather(*(teacher.send(wire, timeout=60) for wire in wires)):
                assert json.loads(teacher.read(reply.body).text)["intent"] in ("lost", "stolen")
    finally:
        await teacher.close()


async def test_a_crashed_llama_is_reported_and_comes_back() -> None:
    models.pull(STUDENT)
    teacher = LocalTeacher(TeacherConfig(provider="local", model=STUDENT, engine="llama.cpp", max_concurrency=2))
    await teacher.start()
    try:
        server = child_of(teacher._engine.server.pid)  # type: ignore[union-attr]

        async def story(sample: int) -> object:
            try:
                return await teacher.send(
                    teacher.wire(request("Tell a long story.", max_tokens=400), sample), timeout=120
                )
            except TeacherError as error:
                return error.failure

        async with asyncio.TaskGroup() as group:
            stories = [group.create_task(story(i)) for i in range(2)]
            await asyncio.sleep(1.0)
            os.kill(server, signal.SIGSEGV)
        assert [task.result() for task in stories] == [FailureClass.CRASHED] * 2
        reply = await teacher.send(teacher.wire(request("Hello"), 0), timeout=60)
        assert reply.status == 200
    finally:
        await teacher.close()
