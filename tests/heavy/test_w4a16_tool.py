"""GPTQ and AWQ by llmcompressor itself, where DISTILL_QUANT_PYTHON names an environment that holds it."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from distill.evaluate import parse_metric
from distill.evaluate.holdout import Holdout, Item
from distill.release.w4a16 import PYTHON, export_w4a16, find_python
from distill.train.data import Conversation
from tests.support.tiny_student import make_model, make_tokenizer

pytestmark = [
    pytest.mark.heavy,
    pytest.mark.skipif(PYTHON not in os.environ, reason=f"{PYTHON} names no environment with llmcompressor"),
]


@pytest.mark.parametrize("method", ["gptq", "awq"])
def test_a_model_is_quantised_and_answers(method: str, tmp_path: Path) -> None:
    student = make_tokenizer(make_model(tmp_path / "tiny-llama", initializer_range=0.3))
    turns = [{"role": "user", "content": f"my card was lost {n}"} for n in range(8)]
    rows = [Conversation((turn, {"role": "assistant", "content": "blocked"}), "row") for turn in turns]
    holdout = Holdout(tuple(Item(str(n), (turn,), "blocked") for n, turn in enumerate(turns)))
    facts = asyncio.run(
        export_w4a16(
            method,  # type: ignore[arg-type]
            str(student),
            tmp_path / "out",
            rows=rows,
            holdout=holdout,
            metrics=[parse_metric("exact_match")],
            python=find_python(None),
            max_tokens=2,
            latency_items=0,
        )
    )
    assert facts["group_size"] == 64
    # Two layers of random weights: the first tokens mostly survive 4 bits.
    assert facts["greedy"] > 0
    weights = sum(file.stat().st_size for file in student.glob("*.safetensors"))
    assert facts["bytes"] < weights
