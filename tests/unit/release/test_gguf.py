"""What is exported is the model: read back by the official package, and run in llama.cpp where it is installed."""

from __future__ import annotations

import asyncio
import importlib.util
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest

from distill.errors import InputError
from distill.evaluate import Item, parse_metric
from distill.evaluate.counting import Drawable
from distill.evaluate.holdout import Holdout
from distill.release.export import write_gguf
from distill.release.gguf import export_gguf
from distill.release.llama import LlamaSystem, running
from distill.release.proof import HARD_TEXTS, prove
from distill.release.vocabulary import read_vocabulary
from distill.train.student import load_tokenizer
from tests.support.tiny_student import make_model, make_tokenizer

llama_cpp = pytest.mark.skipif(importlib.util.find_spec("xllamacpp") is None, reason="needs xllamacpp")

SHAPE: dict[str, Any] = {
    "vocab_size": 512,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 512,
    "eos_token_id": 2,
    "initializer_range": 0.3,  # logits far enough apart for the same greedy answer everywhere
}


def make(family: str, folder: Path) -> Path:
    """A random model of the family, with a tokenizer of its kind."""
    import torch
    import transformers as t

    torch.manual_seed(0)
    made: dict[str, Any] = {
        "llama": lambda: t.LlamaForCausalLM(t.LlamaConfig(**SHAPE, tie_word_embeddings=True)),
        "llama3": lambda: t.LlamaForCausalLM(
            t.LlamaConfig(
                **SHAPE,
                tie_word_embeddings=False,
                rope_parameters={
                    "rope_type": "llama3",
                    "rope_theta": 500000.0,
                    "factor": 8.0,
                    "low_freq_factor": 1.0,
                    "high_freq_factor": 4.0,
                    "original_max_position_embeddings": 64,
                },
            )
        ),
        "qwen2": lambda: t.Qwen2ForCausalLM(
            t.Qwen2Config(**{key: value for key, value in SHAPE.items() if key != "head_dim"}, tie_word_embeddings=True)
        ),
        "qwen3": lambda: t.Qwen3ForCausalLM(t.Qwen3Config(**{**SHAPE, "head_dim": 32}, tie_word_embeddings=True)),
        "gemma3": lambda: t.Gemma3ForCausalLM(
            t.Gemma3TextConfig(**{**SHAPE, "num_hidden_layers": 6}, query_pre_attn_scalar=16, sliding_window=8)
        ),
    }
    model = made[family]()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" in name or name.endswith("bias"):  # ones and zeros would hide a mistake
                parameter.add_(0.2 * torch.randn_like(parameter))
    model.save_pretrained(folder)
    return make_pieces(folder) if family == "gemma3" else make_tokenizer(folder)


def make_pieces(folder: Path) -> Path:
    """BPE over characters with byte fallback, as Gemma and Llama 2 have."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, trainers
    from transformers import PreTrainedTokenizerFast

    special = ["<pad>", "<eos>", "<bos>", "<unk>", "<start_of_turn>", "<end_of_turn>"]
    learnt = Tokenizer(models.BPE())
    trainer = trainers.BpeTrainer(vocab_size=200, special_tokens=special, show_progress=False)
    learnt.train_from_iterator(["my▁card▁was▁lost,▁my▁card▁was▁stolen.▁the▁price▁is▁1234"] * 3, trainer)
    import json

    raw = json.loads(learnt.to_str())["model"]
    vocab = {**raw["vocab"]}
    for byte in range(256):
        vocab.setdefault(f"<0x{byte:02X}>", len(vocab))
    # As folders made from sentencepiece have it: every way to put a token together, the earlier tokens first.
    learned = dict.fromkeys("".join(pair) for pair in raw["merges"])
    merges = [
        (token[:cut], token[cut:])
        for token in learned
        for cut in range(1, len(token))
        if token[:cut] in vocab and token[cut:] in vocab
    ]
    core = Tokenizer(models.BPE(vocab, merges, byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    core.normalizer = normalizers.Replace(" ", "▁")
    core.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    core.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in special])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core, eos_token="<end_of_turn>", bos_token="<bos>", pad_token="<pad>", unk_token="<unk>"
    )
    tokenizer.chat_template = (
        "{% for m in messages %}<start_of_turn>{{ 'model' if m['role'] == 'assistant' else m['role'] }}\n"
        "{{ m['content'] }}<end_of_turn>\n{% endfor %}{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
    )
    tokenizer.save_pretrained(folder)
    return folder


FAMILIES = ("llama", "llama3", "qwen2", "qwen3", "gemma3")


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {family: make(family, tmp_path_factory.mktemp(family) / family) for family in FAMILIES}


def field(reader: gguf.GGUFReader, key: str) -> Any:
    held = reader.get_field(key)
    return held.contents() if held is not None else None


def test_the_file_holds_the_model_and_its_language(models: dict[str, Path], tmp_path: Path) -> None:
    done = write_gguf(str(models["llama"]), tmp_path / "m.gguf", "f32")
    reader = gguf.GGUFReader(tmp_path / "m.gguf")
    tensors = {tensor.name: tensor for tensor in reader.tensors}
    assert len(tensors) == sum(done.tensors.values()) == 2 + 2 * 9
    assert "output.weight" not in tensors  # tied to the embedding
    assert all(tensor.tensor_type == gguf.GGMLQuantizationType.F32 for tensor in reader.tensors)
    assert field(reader, "general.architecture") == "llama"
    assert field(reader, "llama.rope.freq_base") == 10000.0
    assert field(reader, "tokenizer.ggml.pre") == "gpt-2"
    assert field(reader, "tokenizer.ggml.add_bos_token") is False
    assert "<|im_start|>" in field(reader, "tokenizer.chat_template")
    types = field(reader, "tokenizer.ggml.token_type")
    assert types[:4] == [3, 3, 3, 3]  # the special tokens
    assert types[-1] == 5  # a row of the embedding that no token has
    assert str(tmp_path) not in (tmp_path / "m.gguf").read_bytes().decode("latin-1")


def test_query_rows_are_interleaved(models: dict[str, Path], tmp_path: Path) -> None:
    from safetensors.numpy import load_file

    write_gguf(str(models["llama"]), tmp_path / "m.gguf", "f32")
    tensors = {tensor.name: tensor for tensor in gguf.GGUFReader(tmp_path / "m.gguf").tensors}
    given = load_file(models["llama"] / "model.safetensors")["model.layers.0.self_attn.q_proj.weight"]
    written = tensors["blk.0.attn_q.weight"].data
    assert (written[0] == given[0]).all()
    assert (written[1] == given[8]).all()  # the first row of the head's second half
    assert (np.sort(written, 0) == np.sort(given, 0)).all()


@pytest.mark.parametrize(
    ("quant", "wanted"),
    [
        ("q8_0", {"F32": 5, "Q8_0": 15}),
        ("q4_0", {"F32": 5, "Q4_0": 14, "Q8_0": 1}),  # rows of 64 hold no block of 256: the head gets Q8_0
        ("q4_k_m", {"F32": 5, "Q5_0": 12, "Q8_0": 3}),
        ("bf16", {"F32": 5, "BF16": 15}),
    ],
)
def test_formats(quant: Any, wanted: dict[str, int], models: dict[str, Path], tmp_path: Path) -> None:
    done = write_gguf(str(models["llama"]), tmp_path / "m.gguf", quant)
    assert done.tensors == wanted
    assert done.bytes == (tmp_path / "m.gguf").stat().st_size


def test_blocks_of_256_where_the_rows_hold_them(tmp_path: Path) -> None:
    folder = make_tokenizer(make_model(tmp_path / "wide", hidden_size=256, intermediate_size=512, num_hidden_layers=8))
    done = write_gguf(str(folder), tmp_path / "m.gguf", "q4_k_m")
    assert done.tensors == {"F32": 17, "Q4_K": 48, "Q6_K": 9}  # the head, and both projections of four layers


@llama_cpp
@pytest.mark.parametrize("family", FAMILIES)
def test_llama_cpp_reads_writes_and_answers_as_transformers(
    family: str, models: dict[str, Path], tmp_path: Path
) -> None:
    """Every token that llama.cpp chooses is one that transformers puts first, given the same beginning."""
    import torch

    from distill.train.student import load_model

    exported = write_gguf(str(models[family]), tmp_path / f"{family}.gguf", "f32")
    proofs, _ = asyncio.run(prove(str(models[family]), [exported], tmp_path / "eval", max_tokens=4, latency_items=0))
    assert proofs[0].first_mismatch is None
    assert proofs[0].values["tokenisation"] == proofs[0].values["template"] == 1
    prompts = ([5, 10, 20, 40, 80, 120], [300, 200, 100, 50, 7, 9, 11, 13])

    async def answers() -> list[list[int]]:
        async with running(exported.file, context=256, slots=1) as client:
            return [await client.complete(prompt, 12) for prompt in prompts]

    model = load_model(models[family], dtype="float32").eval()
    for prompt, answer in zip(prompts, asyncio.run(answers()), strict=True):
        with torch.inference_mode():
            logits = model(torch.tensor([prompt + answer])).logits[0]
        for position, token in enumerate(answer, len(prompt) - 1):
            behind = float(logits[position].max() - logits[position, token])
            assert behind < 0.01, position  # llama.cpp keeps its cache in half precision; their spread is 2.5


def test_a_tokenizer_that_would_be_cut_otherwise_is_refused(models: dict[str, Path], tmp_path: Path) -> None:
    import json
    import shutil

    folder = shutil.copytree(models["llama"], tmp_path / "m")
    file = folder / "tokenizer.json"
    raw = json.loads(file.read_text())
    raw["pre_tokenizer"] = {"type": "Whitespace"}
    file.write_text(json.dumps(raw))
    with pytest.raises(InputError, match="pre-tokenizer"):
        write_gguf(str(folder), tmp_path / "m.gguf", "f32")
    assert not (tmp_path / "m.gguf").exists()


@pytest.mark.parametrize(
    ("split", "ignore", "name"),
    [
        (r"\p{N}{1,3}", True, "llama-bpe"),
        (r"\p{N}{1,3}", False, "smaug-bpe"),
        (r"\p{N}", False, "qwen2"),
    ],
)
def test_the_pattern_decides_not_the_models_name(
    split: str, ignore: bool, name: str, models: dict[str, Path], tmp_path: Path
) -> None:
    import json
    import shutil

    folder = shutil.copytree(models["llama"], tmp_path / "m")
    raw = json.loads((folder / "tokenizer.json").read_text())
    pattern = (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|" + split + r"| ?[^\s\p{L}\p{N}]+[\r\n]*"
        r"|\s*[\r\n]+|\s+(?!\S)|\s+"
    )
    raw["pre_tokenizer"] = {
        "type": "Sequence",
        "pretokenizers": [
            {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False},
            {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": False},
        ],
    }
    raw["model"]["ignore_merges"] = ignore
    (folder / "tokenizer.json").write_text(json.dumps(raw))
    assert read_vocabulary(folder, load_tokenizer(folder), 512).pre == name


def test_what_cannot_be_counted_is_told_before_a_file_is_written(models: dict[str, Path], tmp_path: Path) -> None:
    holdout = Holdout((Item("1", ({"role": "user", "content": "where"},), '{"i": "lost"}'),))
    asked: dict[str, Any] = {"holdout": holdout, "metrics": [parse_metric("macro_f1:field=j")]}
    with pytest.raises(InputError, match="item 1: the answer has no field 'j'"):
        asyncio.run(export_gguf(str(models["llama"]), tmp_path / "m.gguf", **asked))
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="is a file, not a folder"):
        asyncio.run(export_gguf(str(models["llama"]), tmp_path / "file/m.gguf", run=False))
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_quantisation_may_be_written_as_llama_cpp_writes_it(models: dict[str, Path], tmp_path: Path) -> None:
    files = asyncio.run(export_gguf(str(models["llama"]), tmp_path, ["Q8_0", "q4_K_M"], run=False))
    assert [each["quant"] for each in files.proofs] == ["q8_0", "q4_k_m"]


def test_a_family_that_is_not_known_is_told(models: dict[str, Path], tmp_path: Path) -> None:
    import json
    import shutil

    folder = shutil.copytree(models["llama"], tmp_path / "m")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "model_type": "gpt_neox"}))
    with pytest.raises(InputError, match="'gpt_neox' cannot be exported"):
        write_gguf(str(folder), tmp_path / "m.gguf", "f32")


def test_the_hard_texts_are_hard() -> None:
    assert any("\t" in text for text in HARD_TEXTS)
    assert any(ord(character) > 0xFFFF for text in HARD_TEXTS for character in text)


@llama_cpp
def test_a_file_is_drawn_from(models: dict[str, Path], tmp_path: Path) -> None:
    """Draws differ from each other, and each is the same when it is made again."""
    file = write_gguf(str(models["llama"]), tmp_path / "m.gguf", "f32").file
    items = [Item(str(n), ({"role": "user", "content": f"message {n}"},), "") for n in range(3)]
    system = LlamaSystem(file, str(models["llama"]), "small", max_tokens=12, latency_items=0)
    assert isinstance(system, Drawable)

    def texts(of: LlamaSystem) -> list[str]:
        found = asyncio.run(of.answer(items, lambda _: None))
        return [prediction.text for prediction in found.predictions]

    first, again, second = (texts(system.drawing(number, 0.8)) for number in (0, 0, 1))
    assert first == again
    assert first != second
    assert system.drawing(1, 0.8).about() != system.about()
