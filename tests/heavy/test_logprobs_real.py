"""Log-probabilities of a real server are those of the weights, on the tokens of the student.

Needs the model in the cache, or an index to pull it from.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import pytest

from distill import models
from distill.dataset import Row, rows_to_table
from distill.errors import DistillError
from distill.planning import Slot, Topic
from distill.recipe import TeacherConfig
from distill.teachers import Message, Request, SamplingParams
from distill.teachers.local import LocalTeacher

pytestmark = pytest.mark.heavy

MODEL = "smollm2-135m-instruct"
QUESTIONS = ("What is the capital of France?", "Say hello – in German!", "Write the numbers 7, 8, 9.", "Name a colour.")


async def test_what_llama_cpp_says_of_its_tokens_is_what_the_weights_say(tmp_path: Path) -> None:
    import torch

    from distill.train import TrainData, read_stored
    from distill.train.examples import prepare
    from distill.train.student import load_model, load_tokenizer
    from distill.train.targets import align, batch_of

    try:
        folder = models.folder(MODEL)
    except DistillError as error:
        pytest.skip(str(error))
    config = TeacherConfig(provider="local", model=MODEL, engine="llama.cpp", sampling={"top_logprobs": 5})
    teacher = LocalTeacher(config)
    await teacher.start()
    rows: list[Row] = []
    try:
        for number, question in enumerate(QUESTIONS):
            asked = Message("user", question)
            params = SamplingParams(max_tokens=40, temperature=0.0, top_logprobs=5)
            wire = teacher.wire(Request("main", (asked,), params), 0)
            read = teacher.read((await teacher.send(wire, timeout=300)).body)
            assert read.logprobs is not None
            turns = (asked, Message("assistant", read.text))
            slot = Slot(f"r-{number}", number, Topic(("q",)))
            rows.append(Row(f"r-{number}", slot, turns, "main", logprobs=read.logprobs))
    finally:
        await teacher.close()
    path = tmp_path / "train.jsonl"
    path.write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in rows_to_table(rows).to_pylist()))

    tokenizer = load_tokenizer(folder)
    prepared = prepare(TrainData.read(path), tokenizer, max_length=1024)
    found = align(prepared.train, read_stored(path), tokenizer, head=len(tokenizer))
    assert (found.without, found.apart) == (0, 0)

    model: Any = load_model(folder, dtype="float32").eval()
    for example, told in zip(prepared.train, found.targets, strict=True):
        batch = batch_of([example], tokenizer.pad_token_id)
        with torch.no_grad():
            logits = model(input_ids=batch["input_ids"]).logits[0, :-1]
        logs = torch.log_softmax(logits[batch["labels"][0, 1:] >= 0].float(), -1)
        known = torch.isfinite(told.logs)
        assert int(known.any(-1).sum()) >= len(logs) - 1  # all but the end of the turn
        apart = (logs.gather(-1, told.ids) - told.logs)[known & (told.logs > -3)].abs()
        # llama.cpp multiplies in the quantised types, so small differences are its own.
        assert float(apart.median()) < 0.2
