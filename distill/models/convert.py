# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# transformers' GGUF loader and torch carry no usable types; everything untyped stays inside this file.
"""A transformers folder from a GGUF file, made once and kept in the cache.

Tensors are dequantised one at a time straight to bfloat16 and written as safetensors. No model object is filled:
a 1.5B model needs 3.5 GB at its peak instead of 9, and buffers that are not weights (the rotary frequencies, which
must stay float32) are computed anew whenever the folder is loaded. The folder says which file it was made from;
another file makes another folder.
"""

from __future__ import annotations

import contextlib
import functools
import os
import shutil
from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import orjson

from distill.errors import InputError, RunError
from distill.models.cache import cache_root, home, locked, path
from distill.models.catalogue import Model, catalogue
from distill.models.pull import Progress

__all__ = ["folder", "ready_folder"]

_RECIPE = 1
"""Raised when the conversion changes, so that old folders are made again."""


def folder(name_or_path: str | Path, *, progress: Progress = lambda what, done, total: None) -> Path:
    """The transformers-format folder of a model; for a GGUF model of the catalogue it is made on first use.

    Raises:
        InputError: the model is not here, or a GGUF file outside the catalogue.
        RunError: the file could not be converted.
    """
    source = path(name_or_path)
    if source.is_dir():
        return source
    name = str(name_or_path)
    models = catalogue()
    if name not in models:
        raise InputError(
            "a .gguf file outside the catalogue runs in llama.cpp only",
            path=name,
            hint="give a folder in transformers format, or engine: llama.cpp",
        )
    made_from = _source_of(models[name])
    place = home(name) / "hf"
    if _is_made(place, made_from):
        return place
    with locked(name, waiting=lambda: progress("waiting for another process that converts it", 0, 1)):
        if not _is_made(place, made_from):
            fresh = cache_root() / "models" / name / f".hf.{os.getpid()}.tmp"
            shutil.rmtree(fresh, ignore_errors=True)
            try:
                fresh.mkdir(parents=True)
                _convert(source, fresh, progress)
                (fresh / "made_from.json").write_bytes(orjson.dumps(made_from))
                shutil.rmtree(place, ignore_errors=True)
                os.replace(fresh, place)
            except OSError as error:
                raise RunError(
                    f"{name} could not be converted: {error.strerror or error}",
                    hint=f"about {2.1e-9 * models[name].parameters:.1f} GB of disk are needed in {home(name)}",
                ) from None
            finally:
                shutil.rmtree(fresh, ignore_errors=True)
            progress("converted", 1, 1)
    return place


def ready_folder(name_or_path: str | Path) -> Path | None:
    """The transformers folder when it is there already, else None. Never converts."""
    source = path(name_or_path)
    if source.is_dir():
        return source
    model = catalogue().get(str(name_or_path))
    place = home(str(name_or_path)) / "hf"
    return place if model is not None and _is_made(place, _source_of(model)) else None


def _source_of(model: Model) -> dict[str, Any]:
    return {"sha256": model.files[0].sha256, "conversion": _RECIPE}


def _is_made(place: Path, made_from: dict[str, Any]) -> bool:
    try:
        return orjson.loads((place / "made_from.json").read_bytes()) == made_from
    except (OSError, ValueError):
        return False


@contextlib.contextmanager
def _read_once() -> Generator[None]:
    """A vocabulary takes seconds to parse, and transformers would do it anew for the settings, the names and the
    tokenizer: for as long as this lasts, one file has one reader."""
    import gguf

    made = gguf.GGUFReader
    read = functools.cache(made)

    def reader(file: str) -> Any:
        return read(os.path.realpath(file))

    gguf.GGUFReader = reader  # pyright: ignore[reportAttributeAccessIssue]
    try:
        yield
    finally:
        gguf.GGUFReader = made


def _convert(source: Path, place: Path, progress: Progress) -> None:
    with _read_once():
        _write_folder(source, place, progress)


def _write_folder(source: Path, place: Path, progress: Progress) -> None:
    import torch
    from safetensors.torch import save_file
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, GenerationConfig

    config = AutoConfig.from_pretrained(source.parent, gguf_file=source.name)
    with torch.device("meta"):
        skeleton = AutoModelForCausalLM.from_config(config)
    tensors = dict(_tensors(source, skeleton, progress))
    expected = set(skeleton.state_dict())
    if config.tie_word_embeddings:
        expected.discard("lm_head.weight")
        tensors.pop("lm_head.weight", None)
    if expected != set(tensors):
        odd = sorted(expected.symmetric_difference(tensors))
        raise RunError(f"{source.name}: {len(odd)} tensors do not fit the architecture, {odd[0]} for one")
    progress("writing", 0, 1)
    save_file(tensors, place / "model.safetensors", {"format": "pt"})
    (place / "model.safetensors").chmod(0o644)
    config.architectures = [type(skeleton).__name__]
    config.dtype = torch.bfloat16
    config.save_pretrained(place)
    GenerationConfig.from_model_config(config).save_pretrained(place)
    tokenizer = AutoTokenizer.from_pretrained(source.parent, gguf_file=source.name)
    tokenizer.model_max_length = config.max_position_embeddings
    tokenizer.save_pretrained(place)
    for file in place.glob("*config.json"):
        _strip_names(file)


def _tensors(source: Path, skeleton: Any, progress: Progress) -> Iterator[tuple[str, Any]]:
    """(name in transformers, bfloat16 tensor), one after another."""
    import gguf
    import torch
    from transformers import modeling_gguf_pytorch_utils as loader

    # The processor undoes what the GGUF writer did to single tensors (llama's rows of q and k are permuted).
    read = loader.load_gguf_checkpoint(str(source), return_tensors=False)
    reader: Any = gguf.GGUFReader(str(source))
    architecture = loader.read_field(reader, "general.architecture")[0]
    processor = loader.TENSOR_PROCESSORS.get(architecture, loader.TensorProcessor)(config=read["config"])
    names = loader.get_gguf_hf_weights_map(skeleton, processor)

    def convert(tensor: Any) -> tuple[str, Any]:
        made = processor.process(
            weights=gguf.dequantize(tensor.data, tensor.tensor_type),
            name=tensor.name,
            tensor_key_mapping=names,
            parsed_parameters=read,
        )
        # Numbers of 16 bits are what stays; those of 32 bits are gone with each tensor.
        half = torch.from_numpy(made.weights.copy()).to(torch.bfloat16).contiguous() if made.name in names else None
        return made.name, half

    # Unpacking is numpy's work, on one core each; more than a few at once would cost the memory that is saved here.
    with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
        for number, (name, weights) in enumerate(pool.map(convert, reader.tensors)):
            progress("converting tensors", number, len(reader.tensors))
            if weights is not None:
                yield names[name], weights


def _strip_names(file: Path) -> None:
    # Names of local folders and of the quantiser's own model have no place in what others will build on.
    value = orjson.loads(file.read_bytes())
    for key in ("_model_name_or_path", "_name_or_path", "name_or_path", "is_local", "local_files_only"):
        value.pop(key, None)
    file.write_bytes(orjson.dumps(value, option=orjson.OPT_INDENT_2) + b"\n")
