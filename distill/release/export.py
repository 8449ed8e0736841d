"""A model folder becomes one GGUF file, quantised on the way, a tensor at a time.

The file is written on the official `gguf` package. Which tensor gets how many bits follows llama.cpp's own choices
for each quantisation: one-dimensional tensors stay in float32; the head, or the embedding it is tied to, gets Q6_K in
the 4-bit mixes; Q4_K_M gives half of the value and down projections Q6_K; rows that a format's blocks do not fit get
the next format that does.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import gguf
import numpy as np
from gguf import GGMLQuantizationType as Kind
from gguf import GGUFWriter, LlamaFileType

from distill.io import atomic_path
from distill.release.architecture import Architecture, Tensor, read_architecture
from distill.release.kquants import quantise
from distill.release.vocabulary import Vocabulary, read_vocabulary
from distill.train import student
from distill.train.template import use_template

__all__ = ["QUANTISATIONS", "Exported", "Quantisation", "write_gguf"]

Quantisation = Literal["f32", "f16", "bf16", "q8_0", "q4_k_m", "q4_0"]
QUANTISATIONS: tuple[Quantisation, ...] = ("f32", "f16", "bf16", "q8_0", "q4_k_m", "q4_0")

_KINDS: dict[Quantisation, tuple[Kind, LlamaFileType]] = {
    "f32": (Kind.F32, LlamaFileType.ALL_F32),
    "f16": (Kind.F16, LlamaFileType.MOSTLY_F16),
    "bf16": (Kind.BF16, LlamaFileType.MOSTLY_BF16),
    "q8_0": (Kind.Q8_0, LlamaFileType.MOSTLY_Q8_0),
    "q4_k_m": (Kind.Q4_K, LlamaFileType.MOSTLY_Q4_K_M),
    "q4_0": (Kind.Q4_0, LlamaFileType.MOSTLY_Q4_0),
}
_FALLBACK = {Kind.Q4_K: Kind.Q5_0, Kind.Q6_K: Kind.Q8_0}
_VERSION = 2  # of the quantisation formats


@dataclass(frozen=True, slots=True)
class Exported:
    """What was written."""

    file: Path
    quantisation: Quantisation
    architecture: str
    tensors: dict[str, int]
    """Tensors by format."""
    bytes: int
    pre: str
    """llama.cpp's name for the tokenizer's way of cutting words."""
    template: str


def write_gguf(
    model: str,
    out: Path,
    quantisation: Quantisation,
    *,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Exported:
    """Write the model (a folder in transformers format, or a name of the catalogue) to the file `out`.

    Raises:
        InputError: the model's family or its tokenizer cannot be exported.
    """
    place = student.locate(model)
    student.offline()
    tokenizer = student.load_tokenizer(place.folder)
    template = use_template(tokenizer, place.folder)
    architecture = read_architecture(place.folder)
    tensors = architecture.tensors()
    rows = next(tensor.shape[0] for tensor in tensors if tensor.name == "token_embd.weight")
    vocabulary = read_vocabulary(place.folder, tokenizer, rows)
    kinds = {tensor.name: _kind(tensor, quantisation, architecture) for tensor in tensors}
    with atomic_path(out) as temporary:
        writer = GGUFWriter(temporary, architecture.name)
        try:
            _describe(writer, place.name, architecture, vocabulary, template, quantisation)
            for tensor in tensors:
                _announce(writer, tensor, kinds[tensor.name])
            writer.write_header_to_file()
            writer.write_kv_data_to_file()
            writer.write_ti_data_to_file()
            for done, (tensor, values) in enumerate(zip(tensors, architecture.values(tensors), strict=True), 1):
                writer.write_tensor_data(np.ascontiguousarray(quantise(values, kinds[tensor.name])))
                progress(done, len(tensors))
        finally:
            writer.close()
    counts = Counter(kind.name for kind in kinds.values())
    return Exported(out, quantisation, architecture.name, dict(counts), out.stat().st_size, vocabulary.pre, template)


def _describe(
    writer: GGUFWriter,
    name: str,
    architecture: Architecture,
    vocabulary: Vocabulary,
    template: str,
    quantisation: Quantisation,
) -> None:
    writer.add_type("model")
    writer.add_name(name)
    architecture.write(writer)
    writer.add_file_type(int(_KINDS[quantisation][1]))
    writer.add_quantization_version(_VERSION)
    vocabulary.write(writer)
    writer.add_chat_template(template)


def _announce(writer: GGUFWriter, tensor: Tensor, kind: Kind) -> None:
    if kind in (Kind.F32, Kind.F16):
        number: Any = np.float32 if kind is Kind.F32 else np.float16
        size = int(np.prod(tensor.shape)) * np.dtype(number).itemsize
        writer.add_tensor_info(tensor.name, tensor.shape, np.dtype(number), size)
        return
    shape = gguf.quants.quant_shape_to_byte_shape(tensor.shape, kind)
    writer.add_tensor_info(tensor.name, shape, np.dtype(np.uint8), int(np.prod(shape)), raw_dtype=kind)


def _kind(tensor: Tensor, quantisation: Quantisation, architecture: Architecture) -> Kind:
    kind = _KINDS[quantisation][0]
    if len(tensor.shape) == 1:
        return Kind.F32
    if quantisation in ("q4_k_m", "q4_0"):
        head = "token_embd.weight" if architecture.tied else "output.weight"
        more = quantisation == "q4_k_m" and tensor.name.endswith((".attn_v.weight", ".ffn_down.weight"))
        if tensor.name == head or (more and _has_more_bits(tensor.name, architecture.layers)):
            kind = Kind.Q6_K
    columns = tensor.shape[-1]
    if columns % gguf.GGML_QUANT_SIZES[kind][0]:
        kind = _FALLBACK.get(kind, Kind.F16)
    return kind if columns % gguf.GGML_QUANT_SIZES[kind][0] == 0 else Kind.F16


def _has_more_bits(name: str, layers: int) -> bool:
    """The first and the last eighth of the layers, and every third between."""
    layer, eighth = int(name.split(".")[1]), layers // 8
    return layer < eighth or layer >= 7 * layers // 8 or (layer - eighth) % 3 == 2
