"""The refilled batch writes what the model's own `generate` writes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from distill.teachers.local.batch import Batch, BatchRow
from distill.teachers.local.sampling import Draw
from tests.support.tiny_student import make_model

GREEDY = Draw(temperature=0.0, top_p=1.0, top_k=1, min_p=0.0, seed=0)
END = 2
SYSTEM = list(range(10, 60))
PROMPTS = [
    [*SYSTEM, 100, 101, 102],
    [*SYSTEM, 110],
    [5, 6, 7, 8],
    [*SYSTEM[:20], 99, *range(200, 240)],
    [*SYSTEM, 100, 101, 102],
    list(range(300, 330)),
    [*SYSTEM, 120, 121],
]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Any:
    from transformers import AutoModelForCausalLM

    folder: Path = make_model(tmp_path_factory.mktemp("model"), initializer_range=0.3)
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


@pytest.fixture
def expected(model: Any) -> list[list[int]]:
    answers: list[list[int]] = []
    for prompt in PROMPTS:
        made = model.generate(
            torch.tensor([prompt]), max_new_tokens=24, do_sample=False, eos_token_id=END, pad_token_id=END
        )
        answers.append(made[0, len(prompt) :].tolist())
    return answers


def run(batch: Batch, rows: list[BatchRow], refill: int) -> None:
    """Drive the batch until every row is done, adding rows whenever `refill` slots are free."""
    waiting = list(rows)
    while waiting or batch.rows:
        if waiting and batch.free >= min(refill, len(waiting)):
            take = min(batch.free, len(waiting))
            batch.add(waiting[:take])
            waiting = waiting[take:]
        else:
            batch.step()
        for row in list(batch.rows):
            if row.tokens[-1] == END or len(row.tokens) >= row.max_tokens:
                batch.remove(row)


@pytest.mark.parametrize(("slots", "refill"), [(1, 1), (2, 1), (3, 2), (7, 7)])
def test_greedy_rows_equal_generate(model: Any, expected: list[list[int]], slots: int, refill: int) -> None:
    assert len({tuple(answer) for answer in expected}) >= 5  # the model says different things
    rows = [BatchRow(prompt, 24, GREEDY) for prompt in PROMPTS]
    run(Batch(model, slots), rows, refill)
    assert [row.tokens for row in rows] == expected


def test_a_shared_prefix_is_computed_once(model: Any) -> None:
    computed: list[int] = []
    hook = model.model.embed_tokens.register_forward_hook(lambda _, given, __: computed.append(given[0].numel()))
    try:
        batch = Batch(model, 4)
        batch.add([BatchRow([*SYSTEM, 100 + i], 2, GREEDY) for i in range(4)])
    finally:
        hook.remove()
    assert sum(computed) == len(SYSTEM) + 1 + 3


def test_seeds_decide_what_is_drawn(model: Any) -> None:
    def texts(seeds: list[int], slots: int) -> list[list[int]]:
        rows = [BatchRow(PROMPTS[0], 12, Draw(1.0, 1.0, 0, 0.0, seed)) for seed in seeds]
        run(Batch(model, slots), rows, 1)
        return [row.tokens for row in rows]

    alone = [texts([seed], 1)[0] for seed in (1, 2, 3)]
    assert texts([1, 2, 3], 3) == alone
    assert len({tuple(tokens) for tokens in alone}) == 3


@pytest.fixture(autouse=True)
def _few_threads() -> None:
    torch.set_num_threads(2)
