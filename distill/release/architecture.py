# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# safetensors and torch are only partly typed.
"""What llama.cpp has to know of a model: its dimensions, its tensors' names, and how it wants some of them.

Four families: llama (also SmolLM and Mistral), qwen2, qwen3, gemma3. Llama's query and key rows are interleaved, as
llama.cpp rotates neighbouring values where transformers rotates halves; gemma's norms are stored with the one that
transformers adds while it runs; a head that is tied to the embedding is left out.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from gguf import GGUFWriter, RopeScalingType
from numpy.typing import NDArray

from distill.errors import InputError
from distill.io import loads

__all__ = ["Architecture", "Tensor", "read_architecture"]

Floats = NDArray[np.float32]

_FAMILIES = {
    "llama": gguf.MODEL_ARCH.LLAMA,
    "mistral": gguf.MODEL_ARCH.LLAMA,
    "qwen2": gguf.MODEL_ARCH.QWEN2,
    "qwen3": gguf.MODEL_ARCH.QWEN3,
    "gemma3_text": gguf.MODEL_ARCH.GEMMA3,
}


@dataclass(frozen=True, slots=True)
class Tensor:
    """One tensor of the folder, and its name in the GGUF file."""

    name: str
    source: str
    file: Path | None
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Architecture:
    """A model folder seen as one of the families."""

    folder: Path
    family: str
    config: dict[str, Any]

    @property
    def name(self) -> str:
        """llama.cpp's name."""
        return gguf.MODEL_ARCH_NAMES[_FAMILIES[self.family]]

    @property
    def layers(self) -> int:
        return int(self.config["num_hidden_layers"])

    @property
    def tied(self) -> bool:
        return bool(self.config.get("tie_word_embeddings", self.family == "gemma3_text"))

    def write(self, writer: GGUFWriter) -> None:
        """Add the dimensions to the file's metadata."""
        config = self.config
        writer.add_context_length(config["max_position_embeddings"])
        writer.add_embedding_length(config["hidden_size"])
        writer.add_block_count(self.layers)
        writer.add_feed_forward_length(config["intermediate_size"])
        writer.add_head_count(config["num_attention_heads"])
        writer.add_head_count_kv(config.get("num_key_value_heads") or config["num_attention_heads"])
        writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
        writer.add_vocab_size(config["vocab_size"])
        writer.add_key_length(self._head)
        writer.add_value_length(self._head)
        if self.family in ("llama", "mistral"):
            writer.add_rope_dimension_count(self._head)
        rope = self._rope("full_attention")
        writer.add_rope_freq_base(float(rope["rope_theta"]))
        kind = rope.get("rope_type", "default")
        if kind == "linear":
            writer.add_rope_scaling_type(RopeScalingType.LINEAR)
            writer.add_rope_scaling_factor(float(rope["factor"]))
        elif kind == "yarn":
            writer.add_rope_scaling_type(RopeScalingType.YARN)
            writer.add_rope_scaling_factor(float(rope["factor"]))
            writer.add_rope_scaling_orig_ctx_len(int(rope["original_max_position_embeddings"]))
        elif kind not in ("default", "llama3"):
            raise self._wrong(f"rope scaling {kind!r} is not supported", "rope_parameters")
        if self.family == "gemma3_text":
            self._gemma(writer)
        elif config.get("sliding_window") and (config.get("use_sliding_window", self.family == "mistral")):
            raise self._wrong("attends to a sliding window, which llama.cpp has not for this family", "sliding_window")

    def tensors(self) -> list[Tensor]:
        """Every tensor that goes into the file, in a fixed order.

        Raises:
            InputError: one has no place in this family, or one is missing.
        """
        from safetensors import safe_open

        names = gguf.get_tensor_name_map(_FAMILIES[self.family], self.layers)
        found: list[Tensor] = []
        for file in sorted(self.folder.glob("*.safetensors")):
            with safe_open(file, framework="pt") as held:
                for source in held.keys():  # noqa: SIM118 - not a dict
                    if source == "lm_head.weight" and self.tied:
                        continue
                    name = names.get_name(source, try_suffixes=(".weight", ".bias"))
                    if name is None:
                        raise InputError(f"{source} has no place in a {self.name} model", path=file)
                    found.append(Tensor(name, source, file, tuple(held.get_slice(source).get_shape())))
        if self._rope("full_attention").get("rope_type") == "llama3":
            found.append(Tensor("rope_freqs.weight", "", None, (self._head // 2,)))
        wanted = {"token_embd.weight", "output_norm.weight", *([] if self.tied else ["output.weight"])}
        if missing := wanted - {tensor.name for tensor in found}:
            raise InputError(f"has no tensor for {sorted(missing)[0]}", path=self.folder)
        return sorted(found, key=lambda tensor: (_layer(tensor.name), tensor.name))

    def values(self, tensors: list[Tensor]) -> Iterator[Floats]:
        """The numbers of each tensor as llama.cpp wants them, one after another."""
        import torch
        from safetensors import safe_open

        for tensor in tensors:
            if tensor.file is None:
                yield self._frequency_factors()
                continue
            with safe_open(tensor.file, framework="pt") as held:
                value = held.get_tensor(tensor.source).to(torch.float32).numpy()
            yield np.ascontiguousarray(self._changed(tensor.source, value))

    def _changed(self, source: str, value: Floats) -> Floats:
        if self.family in ("llama", "mistral"):
            heads = int(self.config["num_attention_heads"])
            if ".q_proj." in source:
                return _interleaved(value, heads)
            if ".k_proj." in source:
                return _interleaved(value, int(self.config.get("num_key_value_heads") or heads))
        if self.family == "gemma3_text" and source.endswith("norm.weight"):
            return value + 1
        return value

    def _gemma(self, writer: GGUFWriter) -> None:
        config = self.config
        # The loader knows the one size (27B) that scales its queries by something else than the head.
        if config.get("query_pre_attn_scalar", self._head) not in (self._head, 168):
            raise self._wrong("differs from head_dim, which llama.cpp assumes", "query_pre_attn_scalar")
        if config.get("final_logit_softcapping"):
            writer.add_final_logit_softcapping(float(config["final_logit_softcapping"]))
        kinds: list[str] = config.get("layer_types") or []
        local = [number for number, kind in enumerate(kinds) if kind == "sliding_attention"]
        if local and local != [number for number in range(len(kinds)) if (number + 1) % 6]:
            raise self._wrong(
                "should be five local layers and a global one in turn, as llama.cpp assumes", "layer_types"
            )
        writer.add_sliding_window(int(config["sliding_window"]))
        writer.add_rope_freq_base_swa(float(self._rope("sliding_attention").get("rope_theta", 10_000.0)))

    @property
    def _head(self) -> int:
        return int(self.config.get("head_dim") or self.config["hidden_size"] // self.config["num_attention_heads"])

    def _rope(self, kind: str) -> dict[str, Any]:
        rope: dict[str, Any] = self.config.get("rope_parameters") or {}
        if kind in rope:  # by kind of attention
            return rope[kind]
        old: dict[str, Any] = self.config.get("rope_scaling") or {}
        base = self.config.get("rope_local_base_freq") if kind == "sliding_attention" else self.config.get("rope_theta")
        given = {"rope_theta": base} if base is not None else {}
        return {"rope_theta": 10_000.0, **old, **given, **rope}

    def _frequency_factors(self) -> Floats:
        """Llama 3's scaling: what each rotation frequency is divided by."""
        rope = self._rope("full_attention")
        factor, low, high = float(rope["factor"]), float(rope["low_freq_factor"]), float(rope["high_freq_factor"])
        context = float(rope.get("original_max_position_embeddings", 8192))
        frequencies = 1.0 / rope["rope_theta"] ** (np.arange(0, self._head, 2, dtype=np.float64) / self._head)
        turns = context * frequencies / (2 * math.pi)  # of each frequency over the original context
        smooth = np.clip((turns - low) / (high - low), 0, 1)
        return (1 / ((1 - smooth) / factor + smooth)).astype(np.float32)

    def _wrong(self, message: str, field: str) -> InputError:
        return InputError(message, path=self.folder / "config.json", field=field)


def read_architecture(folder: Path) -> Architecture:
    """The family of a model folder.

    Raises:
        InputError: none that can be exported.
    """
    config: dict[str, Any] = loads((folder / "config.json").read_bytes())
    family = str(config.get("model_type"))
    if family not in _FAMILIES:
        raise InputError(
            f"a model of type {family!r} cannot be exported",
            path=folder / "config.json",
            field="model_type",
            hint=f"there are: {', '.join(_FAMILIES)}",
        )
    return Architecture(folder, family, config)


def _interleaved(value: Floats, heads: int) -> Floats:
    halves = value.reshape(heads, 2, value.shape[0] // heads // 2, *value.shape[1:])
    return halves.swapaxes(1, 2).reshape(value.shape)


def _layer(name: str) -> int:
    parts = name.split(".")
    return int(parts[1]) if parts[0] == "blk" else -1
