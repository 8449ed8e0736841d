# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
"""Products in 8 bits: near the exact ones, huge values in one part or not, and the engine that uses them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from distill.recipe import TeacherConfig
from distill.teachers.local import engine_transformers, int8
from distill.teachers.local.engine_transformers import TransformersEngine
from distill.teachers.local.int8 import Int8Linear, quantise
from distill.teachers.reading import read_chat
from tests.support.tiny_student import make_model, make_tokenizer
from tests.unit.teachers.test_local_transformers import wire

pytestmark = pytest.mark.skipif(not int8.works(), reason="this build of torch has no 8-bit products")


def error(layer: nn.Linear, x: torch.Tensor, parts: int = 1) -> float:
    """Of the product in 8 bits, relative to the exact one."""
    wanted = layer(x)
    found = Int8Linear(layer, int8.Seen(), parts)(x)
    assert found.shape == wanted.shape
    assert found.dtype == x.dtype
    return float((found - wanted).norm() / wanted.norm())


def layer_of(inputs: int, outputs: int, *, bias: bool) -> nn.Linear:
    torch.manual_seed(3)
    return nn.Linear(inputs, outputs, bias=bias)


@torch.no_grad()
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(1, 1, 96), (5, 7, 96), (40, 96)])
def test_a_product_is_that_of_the_layer_up_to_rounding(shape: tuple[int, ...], bias: bool) -> None:
    layer = layer_of(96, 80, bias=bias)
    torch.manual_seed(1)
    assert error(layer, torch.randn(shape)) < 0.015


@torch.no_grad()
def test_a_token_of_zeros_gives_the_bias() -> None:
    layer = layer_of(64, 48, bias=True)
    found = Int8Linear(layer, int8.Seen())(torch.zeros(2, 64))
    assert torch.allclose(found, layer.bias.expand(2, -1))


@torch.no_grad()
def test_a_huge_value_costs_its_own_part_precision_and_its_own_token() -> None:
    layer = layer_of(256, 64, bias=False)
    torch.manual_seed(2)
    x = torch.randn(8, 256)
    layer.weight[:, 5] = 0  # what the huge value itself adds to the result is not the question
    calm = error(layer, x)
    x[0, 5] = 3000.0
    whole = Int8Linear(layer, int8.Seen())(x)
    parts = Int8Linear(layer, int8.Seen(), 4)(x)
    wanted = layer(x)
    assert float((whole[1:] - wanted[1:]).norm() / wanted[1:].norm()) < 1.5 * calm
    lost = [float((found[0] - wanted[0]).norm() / wanted[0].norm()) for found in (whole, parts)]
    assert lost[0] > 0.5  # everything else in the token is rounded away
    assert lost[1] < 0.7 * lost[0]


@pytest.mark.parametrize(
    ("inputs", "width", "parts"), [(8960, 512, 16), (8192, 512, 16), (300, 512, 1), (1031, 512, 1), (96, None, 1)]
)
def test_parts_are_equal(inputs: int, width: int | None, parts: int) -> None:
    assert int8.parts_of(inputs, width) == parts


@torch.no_grad()
def test_an_input_changed_in_between_is_rounded_anew() -> None:
    layer, seen = layer_of(64, 32, bias=False), int8.Seen()
    fast = Int8Linear(layer, seen)
    for seed in range(20):  # memory of one input is handed to the next: its address says nothing
        x = torch.randn(4, 64, generator=torch.Generator().manual_seed(seed))
        wanted = layer(x)
        assert float((fast(x) - wanted).norm() / wanted.norm()) < 0.02
        del x


@torch.no_grad()
def test_the_layers_of_the_body_are_replaced_and_the_head_is_not(tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(make_model(tmp_path, initializer_range=0.3))
    ids = torch.arange(3, 40).unsqueeze(0) % model.config.vocab_size
    wanted = model(ids).logits.float().log_softmax(-1)
    assert quantise(model) == 7 * model.config.num_hidden_layers
    assert type(model.get_output_embeddings()) is nn.Linear
    found = model(ids).logits.float().log_softmax(-1)
    divergence = (wanted.exp() * (wanted - found)).sum(-1).mean()
    assert 0 < divergence < 0.02


async def test_the_engine_uses_them_where_the_processor_is_fast(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make_tokenizer(make_model(tmp_path, initializer_range=0.3))
    monkeypatch.setattr(engine_transformers, "fast_int8", lambda: True)
    monkeypatch.setattr(engine_transformers, "fast_bfloat16", lambda: True)
    for wanted in (True, False):
        engine = TransformersEngine(lambda: folder, concurrency=2, context=200, int8=wanted)
        await engine.start()
        reply = await engine.send(wire(), timeout=60)
        await engine.close()
        assert read_chat(reply.body, "tiny").usage.output > 0
        assert (b"transformers bfloat16 and int8" in reply.body) is wanted


def test_a_recipe_may_ask_for_full_precision() -> None:
    made = TeacherConfig.model_validate({"provider": "local", "model": "m", "precision": "full"})
    assert made.precision == "full"
