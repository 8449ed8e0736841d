# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# torch, transformers and peft are only partly typed; what is untyped stays inside this file.
"""The student's weights: loaded from a local folder, given an adapter, saved without a trace of this machine.

Nothing is fetched, no code of a model is run, weights are safetensors. A 4-bit base is NF4 with double
quantisation (QLoRA, https://arxiv.org/abs/2305.14314).
"""

from __future__ import annotations

import json
import logging
import os
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from distill.errors import InputError
from distill.io import digest, loads, numeric, write_bytes, write_text
from distill.io.host import fast_bfloat16
from distill.recipe import LoraConfig

__all__ = [
    "Place",
    "adapter_config",
    "choose_dtype",
    "forget_paths",
    "load_adapter",
    "load_config",
    "load_model",
    "load_tokenizer",
    "locate",
    "offline",
    "save",
    "weights_digest",
]


@dataclass(frozen=True, slots=True)
class Place:
    """Where a model lies, and what it may be called in files that leave this machine."""

    folder: Path
    name: str


def locate(model: str) -> Place:
    """The folder of `model`: a folder in transformers format, or a name of the catalogue.

    Raises:
        InputError: there is no such folder or name, or the folder holds no safetensors model.
    """
    given = Path(model).expanduser()
    if given.is_dir():
        place = Place(given.resolve(), given.resolve().name)
    else:
        from distill.models import folder

        place = Place(folder(model), Path(model).name)
    if not (place.folder / "config.json").is_file():
        adapter = any((each / "adapter_config.json").is_file() for each in (place.folder, place.folder / "adapter"))
        hint = "this is an adapter: name its base as --model, and this as --adapter" if adapter else None
        raise InputError("not a model folder: it has no config.json", path=model, hint=hint)
    if not any(place.folder.glob("*.safetensors")):
        raise InputError(
            "the folder has no *.safetensors", path=model, hint="pickled weights can run code and are not loaded"
        )
    return place


def offline() -> None:
    """Keep the model libraries off the network and their chatter off the terminal. Call before they are imported."""
    for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_HUB_DISABLE_TELEMETRY"):
        os.environ[name] = "1"
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    numeric.prepare()
    # Renamed settings are TRL's and transformers' own affair; kernels that could be fetched are not wanted.
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"(transformers|trl|peft)\.")
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    import transformers

    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()


def load_config(folder: Path) -> Any:
    """The configuration of a model folder.

    Raises:
        InputError: it is none, or of a family that transformers does not know.
    """
    from transformers import AutoConfig

    try:
        return AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"config.json cannot be read: {_first_line(error)}", path=folder) from None


def load_tokenizer(folder: Path) -> Any:
    """The tokenizer of a model folder.

    Raises:
        InputError: there is none that can be loaded.
    """
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # the library below raises nothing narrower for a file that it cannot read
        hint = "the folder needs the model's tokenizer.json and tokenizer_config.json"
        raise InputError(f"the tokenizer cannot be loaded: {_first_line(error)}", path=folder, hint=hint) from None
    if tokenizer.pad_token_id is None:
        # Padding never reaches the loss: labels and attention mask come from lengths, not from this id.
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.unk_token
    return tokenizer


def load_model(folder: Path, *, dtype: str, four_bit: bool = False) -> Any:
    """The causal language model of a folder, on the GPU where there is one.

    Args:
        dtype: `bfloat16` or `float32`.
        four_bit: quantise the linear layers to NF4 while loading.

    Raises:
        InputError: not a causal language model, or it cannot be loaded.
    """
    import torch
    from safetensors import SafetensorError
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    kind = getattr(torch, dtype)
    quantization = (
        BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=kind,
        )
        if four_bit
        else None
    )
    device = {"": torch.cuda.current_device()} if torch.cuda.is_available() else {"": "cpu"}
    try:
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            folder,
            dtype=kind,
            quantization_config=quantization,
            device_map=device,
            attn_implementation="sdpa",
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=True,
            ignore_mismatched_sizes=True,  # they are told below, by name
            output_loading_info=True,
        )
        model, found = loaded
    except (OSError, ValueError, KeyError, AttributeError, TypeError, SafetensorError) as error:
        raise InputError(f"the model cannot be loaded: {_first_line(error)}", path=folder) from None
    _whole(found, folder)
    if four_bit:
        keep_packing(model)
        _let_go(model)
    model.config.use_cache = True
    _decode_plainly(model)
    return model


def _decode_plainly(model: Any) -> None:
    """Leave nothing of the model's own settings for decoding but its special tokens.

    Many models come with a penalty on repetitions, which `generate` keeps in greedy decoding too, over the prompt's
    tokens as well: a trained student would be scored by answers that it does not give in llama.cpp, nor was taught.
    """
    from transformers import GenerationConfig

    own = model.generation_config
    names = ("bos_token_id", "eos_token_id", "pad_token_id")
    model.generation_config = GenerationConfig(**{name: getattr(own, name, None) for name in names})


def _whole(found: Mapping[str, Any], folder: Path) -> None:
    """Every tensor of the model came from its files: the library draws the missing ones at random, with a log line."""
    missing = sorted(found["missing_keys"])
    other = sorted(str(name) for name, *_ in found["mismatched_keys"])
    said = f"its files lack {len(missing)} of the model's tensors, {missing[0]} first" if missing else None
    if other:
        said = f"{len(other)} tensors have another shape than config.json says, {other[0]} first"
    if said:
        hint = "fetch the folder again; the weights and config.json have to be of one model"
        raise InputError(said, path=folder, hint=hint)


def _let_go(model: Any) -> None:
    """Copy what was not quantised out of the mapped file: one tensor in it keeps the whole file in memory."""
    for parameter in model.parameters():
        if parameter.is_floating_point() and parameter.device.type == "cpu":
            parameter.data = parameter.data.clone()


def keep_packing(model: Any) -> None:
    """Stop bitsandbytes from repacking 4-bit weights for the CPU's AVX512-BF16 instructions.

    It does so in the first forward pass without gradients (an evaluation), and afterwards training runs on with the
    right loss and a wrong gradient, and merging gives garbage. Seen in bitsandbytes 0.50.2; CUDA is not concerned.
    """
    from bitsandbytes.nn.modules import Linear4bit

    for module in model.modules():
        if isinstance(module, Linear4bit):
            module.support_avx512bf16_for_cpu = False


def load_adapter(model: Any, folder: Path, *, trainable: bool = False, name: str = "default") -> Any:
    """`model` with the adapter of `folder` over it.

    Args:
        trainable: its weights go on being trained.
        name: what the adapter is called in the model.

    Raises:
        InputError: it is damaged, or another model's.
    """
    from peft import PeftModel
    from safetensors import SafetensorError

    try:
        with warnings.catch_warnings():
            # Layers without a tensor in the file would stay as they were made, which is no change at all.
            warnings.filterwarnings("error", message="Found missing adapter keys")
            return PeftModel.from_pretrained(
                model, folder, adapter_name=name, is_trainable=trainable, local_files_only=True
            )
    except (RuntimeError, ValueError, KeyError, TypeError, OSError, UserWarning, SafetensorError) as error:
        raise InputError(f"the adapter does not fit the model: {_first_line(error)}", path=folder) from None


def adapter_config(config: LoraConfig, model: Any) -> Any:
    """PEFT's settings for `config`. The output head never gets an adapter: it is not a hidden layer."""
    from peft import LoraConfig as PeftLora

    targets: Any = "all-linear"
    if config.target == "attention":
        names = {
            name.rsplit(".", 1)[-1] for name, module in model.named_modules() if "attn" in name and _linear(module)
        }
        if not names:
            raise InputError("the model has no attention layers by a known name", field="lora.target")
        targets = sorted(names)
    return PeftLora(
        r=config.r,
        lora_alpha=config.alpha,
        lora_dropout=config.dropout,
        target_modules=targets,
        use_rslora=config.rslora,
        use_dora=config.dora,
        task_type="CAUSAL_LM",
    )


def choose_dtype(wanted: str) -> tuple[str, str]:
    """(`bfloat16` or `float32`, why). `auto` is bfloat16 where the hardware multiplies it fast. Nothing is timed: a
    busy machine chooses as an idle one does."""
    import torch

    if wanted != "auto":
        return wanted, "asked for"
    if torch.cuda.is_available():
        fast = torch.cuda.is_bf16_supported(including_emulation=False)
        return ("bfloat16", "the GPU has it") if fast else ("float32", "the GPU lacks bfloat16")
    if fast_bfloat16():
        return "bfloat16", "the processor multiplies it"
    return "float32", "the processor does not multiply bfloat16"


def save(
    model: Any,
    tokenizer: Any,
    out: Path,
    *,
    base: str,
    template: str,
    trained: dict[str, Any],
    state: dict[str, Any] | None = None,
) -> Path:
    """Write the adapter to `out/adapter`, or the whole model to `out/model`; returns the folder.

    The base is named as the catalogue (or its folder) calls it: paths of this machine do not leave it. `trained` says
    how the base was held (number type, 4-bit), so that what is measured later is what was trained. `state`: the whole
    weights, where the model holds a share of them.
    """
    adapter = hasattr(model, "peft_config")
    folder = out / ("adapter" if adapter else "model")
    if adapter:
        # Preference training adds a frozen copy as its reference, which PEFT would write into a folder `ref/`.
        model.save_pretrained(
            folder,
            safe_serialization=True,
            save_embedding_layers=False,
            selected_adapters=["default"],
            state_dict=state,
        )
        _edit(folder / "adapter_config.json", {"base_model_name_or_path": base, "inference_mode": True})
        (folder / "README.md").unlink(missing_ok=True)  # PEFT's card, with the path of the base in it
    else:
        model.config._name_or_path = base
        model.save_pretrained(folder, safe_serialization=True, state_dict=state)
        tokenizer.save_pretrained(folder)
        forget_paths(folder)
    write_bytes(folder / "distill.json", orjson.dumps({"base": base, **trained}, option=orjson.OPT_INDENT_2))
    for place in (out, folder):
        write_text(place / "chat_template.jinja", template)
    return folder


def weights_digest(folder: Path) -> str:
    """Identifies a folder's weights: names, sizes and content; of files over 64 MB, 64 samples of it."""
    parts: list[Any] = []
    for file in sorted(folder.glob("*.safetensors")):
        size = file.stat().st_size
        step = max(1 << 20, size // 64)
        with file.open("rb") as handle:
            pieces: list[str] = []
            for position in range(0, size, step):
                handle.seek(position)
                pieces.append(digest(handle.read(1 << 20 if size <= 1 << 26 else 1 << 16)))
        parts.append([file.name, size, pieces])
    config = folder / "config.json"
    return digest([*parts, digest(config.read_bytes()) if config.is_file() else ""])


def forget_paths(folder: Path) -> None:
    """Take the places where a model and its tokenizer lay out of the JSON files of a folder."""
    for file in folder.glob("*.json"):
        _edit(file, {"_name_or_path": None, "name_or_path": None})


def _edit(file: Path, changes: dict[str, Any]) -> None:
    """Set the keys that are there; None removes them."""
    value = loads(file.read_bytes())
    if not isinstance(value, dict) or not changes.keys() & value.keys():
        return
    for key in changes.keys() & value.keys():
        value.pop(key) if changes[key] is None else value.update({key: changes[key]})
    # Not orjson: a tokenizer without a limit says 10^30.
    write_text(file, json.dumps(value, indent=2, ensure_ascii=False))


def _linear(module: Any) -> bool:
    import torch

    return isinstance(module, torch.nn.Linear)


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
