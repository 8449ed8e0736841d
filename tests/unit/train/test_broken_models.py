"""A model folder that is damaged, or is none, is told as bad input, whatever the library below says of it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from distill.errors import InputError
from distill.train.student import load_adapter, load_config, load_model, load_tokenizer, locate
from distill.train.template import Encoder, use_template
from tests.support.tiny_student import make_model


def cut(folder: Path) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def change(folder: Path, alter: Callable[[dict[str, object]], None]) -> None:
    from safetensors.torch import load_file, save_file

    tensors = load_file(folder / "model.safetensors")
    alter(tensors)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


UP = "model.layers.1.mlp.up_proj.weight"
WEIGHTS: dict[str, tuple[Callable[[Path], object], str]] = {
    "cut short": (cut, "the model cannot be loaded"),
    "no tensors": (lambda f: (f / "model.safetensors").write_bytes(b"x" * 999), "the model cannot be loaded"),
    "nothing": (lambda f: (f / "model.safetensors").write_bytes(b""), "the model cannot be loaded"),
    "a tensor is missing": (
        lambda f: change(f, lambda t: t.pop(UP)),
        f"its files lack 1 of the model's tensors, {UP} first",
    ),
    "a tensor of another shape": (
        lambda f: change(f, lambda t: t.update({UP: t[UP][:5].contiguous()})),  # type: ignore[index]
        f"1 tensors have another shape than config.json says, {UP} first",
    ),
    "an unknown family": (
        lambda f: (f / "config.json").write_text(json.dumps({"model_type": "frobnicator"})),
        "the model cannot be loaded",
    ),
    "a config that is no object": (lambda f: (f / "config.json").write_text("[1]"), "the model cannot be loaded"),
    "a broken config": (lambda f: (f / "config.json").write_text('{"a": '), "the model cannot be loaded"),
}


@pytest.fixture
def broken(student: Path, tmp_path: Path) -> Path:
    return shutil.copytree(student, tmp_path / "broken")


@pytest.mark.parametrize("how", WEIGHTS)
def test_weights_that_cannot_be_loaded(how: str, broken: Path) -> None:
    damage, says = WEIGHTS[how]
    damage(broken)
    with pytest.raises(InputError) as caught:
        load_model(locate(str(broken)).folder, dtype="float32")
    assert str(caught.value).startswith(f"{broken}: {says}")


@pytest.mark.parametrize("text", ['{"model_type": "frobnicator"}', "[1]", '{"a": '])
def test_a_config_that_is_none(text: str, broken: Path) -> None:
    (broken / "config.json").write_text(text)
    with pytest.raises(InputError, match=r"config\.json cannot be read"):
        load_config(broken)


def test_a_config_that_is_no_object_is_no_tokenizers_either(broken: Path) -> None:
    (broken / "config.json").write_text("[1]")
    with pytest.raises(InputError, match="the tokenizer cannot be loaded"):
        load_tokenizer(broken)


@pytest.mark.parametrize("text", ['{"version": "1.0"', '{"version": "1.0"}', "[]"])
@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer_config.json"])
def test_a_tokenizer_that_is_broken(name: str, text: str, broken: Path) -> None:
    if name == "tokenizer_config.json" and text.endswith("}"):
        pytest.skip("an empty one is a good one")
    (broken / name).write_text(text)
    with pytest.raises(InputError, match="the tokenizer cannot be loaded"):
        load_tokenizer(broken)


def test_no_tokenizer_at_all(broken: Path) -> None:
    for file in broken.glob("*token*"):
        file.unlink()
    with pytest.raises(InputError, match="the tokenizer cannot be loaded"):
        load_tokenizer(broken)


def test_a_template_that_is_broken(broken: Path) -> None:
    (broken / "chat_template.jinja").write_text("{% for m in messages %}{{ m.content")
    tokenizer = load_tokenizer(broken)
    use_template(tokenizer, broken)
    with pytest.raises(InputError, match="the chat template"):
        Encoder(tokenizer).prompt([{"role": "user", "content": "where is my card?"}])


def test_an_adapter_in_place_of_a_model_is_told_how_to_be_used(tmp_path: Path) -> None:
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter" / "adapter_config.json").write_text("{}")
    for folder in (tmp_path, tmp_path / "adapter"):
        with pytest.raises(InputError, match="--adapter") as caught:
            locate(str(folder))
        assert "not a model folder" in str(caught.value)


@pytest.fixture(scope="module")
def adapter(student: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An adapter as other tools leave it: without our notes of its base."""
    from peft import LoraConfig, get_peft_model

    folder = tmp_path_factory.mktemp("adapter")
    settings = LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM")
    get_peft_model(load_model(student, dtype="float32"), settings).save_pretrained(folder)
    return folder


ADAPTERS: dict[str, Callable[[Path], object]] = {
    "cut short": lambda f: _shorten(f / "adapter_model.safetensors"),
    "no tensors": lambda f: (f / "adapter_model.safetensors").write_bytes(b"x" * 999),
    "some are missing": lambda f: _without_half(f / "adapter_model.safetensors"),
    "settings that are none": lambda f: (f / "adapter_config.json").write_text("[1]"),
    "an unknown kind": lambda f: (f / "adapter_config.json").write_text('{"peft_type": "FROB"}'),
}


def _shorten(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def _without_half(file: Path) -> None:
    from safetensors.torch import load_file, save_file

    tensors = load_file(file)
    save_file(dict(list(tensors.items())[: len(tensors) // 2]), file, metadata={"format": "pt"})


@pytest.mark.parametrize("how", ADAPTERS)
def test_an_adapter_that_is_damaged(how: str, adapter: Path, student: Path, tmp_path: Path) -> None:
    broken = shutil.copytree(adapter, tmp_path / "broken")
    ADAPTERS[how](broken)
    with pytest.raises(InputError, match="the adapter does not fit the model"):
        load_adapter(load_model(student, dtype="float32"), broken)


def test_an_adapter_of_a_model_of_another_size(adapter: Path, tmp_path: Path) -> None:
    other = load_model(make_model(tmp_path / "other", hidden_size=32), dtype="float32")
    with pytest.raises(InputError, match="the adapter does not fit the model"):
        load_adapter(other, adapter)
