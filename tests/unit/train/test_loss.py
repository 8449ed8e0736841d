"""The shortcuts of the loss change neither its value nor its gradient."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from distill.train.loss import agrees, shared_prefix, token_loss
from distill.train.template import IGNORE
from distill.train.trainer import collate

PREFIX = list(range(10, 34))


@pytest.fixture
def model(student: Path) -> Any:
    from transformers import AutoModelForCausalLM

    torch.manual_seed(0)
    return AutoModelForCausalLM.from_pretrained(student, dtype=torch.float32).train()


def batch(*, prefix: list[int] = PREFIX, pad: int = 2) -> dict[str, Any]:
    """Rows of different lengths that start alike; the last tokens of each are trained."""
    rows = []
    for number in range(4):
        ids = [*prefix, *range(50 + number, 58 + 3 * number), 2]
        labels = [IGNORE] * (len(ids) - 5) + ids[-5:]
        rows.append({"input_ids": ids, "labels": labels})
    return collate(rows, pad)


def gradient(model: Any, loss: Any) -> Any:
    model.zero_grad()
    loss.backward()
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


@pytest.mark.parametrize("share", [False, True])
def test_loss_and_gradient_are_the_models_own(model: Any, share: bool) -> None:
    inputs = batch()
    own = model(**inputs).loss * (inputs["labels"][:, 1:] != IGNORE).sum()
    wanted = gradient(model, own)
    ours = token_loss(model, inputs, share=share)
    assert ours.item() == pytest.approx(own.item(), rel=1e-5)
    torch.testing.assert_close(gradient(model, ours), wanted, rtol=1e-4, atol=1e-5)


def test_the_prefix_is_what_all_rows_share_and_none_trains() -> None:
    inputs = batch()
    assert shared_prefix(inputs["input_ids"], inputs["labels"], inputs["attention_mask"]) == len(PREFIX) - 1
    inputs["labels"][2, 5] = 7
    assert shared_prefix(inputs["input_ids"], inputs["labels"], inputs["attention_mask"]) == 4


def test_a_model_whose_logits_are_not_the_head_alone_is_trained_the_plain_way(model: Any) -> None:
    inputs = batch()
    assert agrees(model, inputs, tolerance=1e-3) == (True, True)
    forward = model.forward

    def scaled(*args: Any, **kwargs: Any) -> Any:
        output = forward(*args, **kwargs)
        output.logits = output.logits * 3
        return output

    model.forward = scaled
    assert agrees(model, inputs, tolerance=1e-3) == (False, False)


def test_padding_is_on_the_right_and_never_hides_an_eos_of_the_same_id() -> None:
    inputs = collate([{"input_ids": [5, 6, 2], "labels": [IGNORE, 6, 2]}, {"input_ids": [5], "labels": [5]}], pad=2)
    assert inputs["input_ids"].tolist() == [[5, 6, 2], [5, 2, 2]]
    assert inputs["labels"].tolist() == [[IGNORE, 6, 2], [5, IGNORE, IGNORE]]
    assert inputs["attention_mask"].tolist() == [[1, 1, 1], [1, 0, 0]]


def test_padding_does_not_change_the_loss(model: Any) -> None:
    inputs = batch()
    alone = sum(
        token_loss(model, {k: v[i : i + 1, : inputs["attention_mask"][i].sum()] for k, v in inputs.items()}).item()
        for i in range(4)
    )
    assert token_loss(model, inputs).item() == pytest.approx(alone, rel=1e-5)
