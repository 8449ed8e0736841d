"""What products in 8 bits change in the embedded teacher, and what they save: the distribution of the next token over
messages of the quickstart's holdout against bfloat16, and the seconds of a batch.

`GOMP_SPINCOUNT=0 python -m benchmarks int8` is the same with threads that sleep at once (`distill/io/numeric.py`)."""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
from __future__ import annotations

import statistics
import time
from typing import Any

from benchmarks.harness import ROOT, table
from distill import models
from distill.io import numeric
from distill.io.host import cores, fast_int8
from distill.io.jsonl import read_jsonl
from distill.teachers.local.batch import Batch, BatchRow
from distill.teachers.local.sampling import Draw

MODEL = "qwen2.5-coder-1.5b-instruct"
COMPARED, TOGETHER, STEPS = 4, 48, 20


def main() -> None:
    numeric.prepare()
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from distill.teachers.local import int8

    torch.set_num_threads(cores())
    if not (fast_int8() and int8.works()):
        print("this processor or this build of torch has no fast products in 8 bits")
        return
    folder = models.folder(MODEL)
    tokenizer: Any = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    system = (ROOT / "prompts/support/zero_shot.j2").read_text("utf-8")
    items = [value for _, value in read_jsonl(ROOT / "data/support/holdout.jsonl")][:TOGETHER]
    prompts: list[list[int]] = [
        list(
            tokenizer.apply_chat_template(
                [{"role": "system", "content": system}, item["messages"][-1]], add_generation_prompt=True
            )["input_ids"]
        )
        for item in items
    ]
    # The same weights, before and after: what is replaced is gone, so bfloat16 goes first.
    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16, local_files_only=True).eval()
    wanted = _distributions(model, prompts)
    rows: list[list[object]] = [["bfloat16", "", "", *_seconds(model, prompts)]]
    int8.quantise(model)
    found = _distributions(model, prompts)
    divergence = torch.cat([(a.exp() * (a - b)).sum(-1) for a, b in zip(wanted, found, strict=True)]).mean()
    same = torch.cat([(a.argmax(-1) == b.argmax(-1)).float() for a, b in zip(wanted, found, strict=True)]).mean()
    rows.append(["int8", float(divergence), float(same), *_seconds(model, prompts)])
    table(["products", "KL to bfloat16", "same likeliest token", "prompts s", "step of 48 rows s"], rows)


def _distributions(model: Any, prompts: list[list[int]]) -> list[Any]:
    import torch

    with torch.inference_mode():
        return [torch.log_softmax(model(torch.tensor([prompt])).logits[0].float(), -1) for prompt in prompts[:COMPARED]]


def _seconds(model: Any, prompts: list[list[int]]) -> tuple[float, float]:
    """Of computing all prompts but the first, whose start the others share, and of one step (median)."""
    batch = Batch(model, TOGETHER)
    draw = Draw(temperature=0.0, top_p=1.0, top_k=0, min_p=0.0, seed=1)
    rows = [BatchRow(prompt, STEPS + 2, draw) for prompt in prompts]
    batch.add(rows[:1])
    started = time.perf_counter()
    batch.add(rows[1:])
    first = time.perf_counter() - started
    steps: list[float] = []
    for _ in range(STEPS):
        started = time.perf_counter()
        batch.step()
        steps.append(time.perf_counter() - started)
    return first, statistics.median(steps)
