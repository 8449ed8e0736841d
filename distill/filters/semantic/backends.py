# torch, transformers and sentence-transformers carry no usable types; everything untyped stays inside this file.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
"""The two kinds of embedding models, opened from local folders.

A folder is read as data: safetensors only, no code of its own, no request to a hub.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import xxhash
from numpy.typing import NDArray

from distill.errors import InputError
from distill.filters.semantic.embedding import Encoder
from distill.io import numeric
from distill.io.host import fast_bfloat16

__all__ = ["SentenceEncoder", "StaticEncoder", "open_encoder"]

_TOKENS = 8192  # in one batch
_ROWS = 256
_STATIC_ROWS = 1024
_CONTENT = (".json", ".txt", ".safetensors", ".model")
_OURS = "sentence_transformers."


def open_encoder(path: Path, *, name: str) -> Encoder:
    """The encoder in a folder of model2vec, sentence-transformers or transformers.

    Raises:
        InputError: it is none of them, or it could only be loaded by running code or a pickle of its own.
    """
    if not (path / "modules.json").is_file() and not (path / "config.json").is_file():
        raise InputError(
            "holds no embedding model", path=path, hint="a folder of sentence-transformers or model2vec has config.json"
        )
    if not any(path.rglob("*.safetensors")):
        raise InputError("holds no safetensors file", path=path, hint="weights in other formats are not loaded")
    return StaticEncoder(path, name) if _is_static(path) else SentenceEncoder(path, name)


class SentenceEncoder:
    """A sentence-transformers model; bfloat16 where the processor computes in it, else float32."""

    def __init__(self, path: Path, name: str) -> None:
        numeric.prepare()
        _check_modules(path)
        # It is loaded with the others, and speaks of kernels that nothing here uses.
        logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
        import torch
        from sentence_transformers import SentenceTransformer
        from transformers.utils import logging as transformers_logging

        transformers_logging.disable_progress_bar()
        device = "cuda" if torch.cuda.is_available() else "cpu"
        fast = torch.cuda.is_bf16_supported() if device == "cuda" else fast_bfloat16()
        dtype = torch.bfloat16 if fast else torch.float32
        try:
            self._model: Any = SentenceTransformer(
                str(path),
                device=device,
                local_files_only=True,
                trust_remote_code=False,
                model_kwargs={"dtype": dtype, "use_safetensors": True},
            )
        except (OSError, ValueError, KeyError, ImportError, RuntimeError) as error:
            first = (str(error).splitlines() or [""])[0]
            raise InputError(f"is not a model that sentence-transformers loads: {first}", path=path) from None
        self._model.eval()
        self.name = name
        self.size = int(self._model.get_embedding_dimension())
        self.digest = _digest(path, f"{dtype} {self._model.max_seq_length}")

    def encode(self, texts: Sequence[str], done: Callable[[int], None]) -> NDArray[np.float32]:
        result = np.empty((len(texts), self.size), np.float32)
        for batch in _equal_lengths(self._lengths(texts)):
            result[batch] = self._model.encode(
                [texts[row] for row in batch],
                batch_size=len(batch),
                show_progress_bar=False,
                convert_to_numpy=True,
            )
            done(len(batch))
        return result

    def _lengths(self, texts: Sequence[str]) -> list[int]:
        limit = self._model.max_seq_length
        shown = self._model.tokenizer(
            list(texts), truncation=limit is not None, max_length=limit, padding=False, return_attention_mask=False
        )
        return [len(ids) for ids in shown["input_ids"]]


class StaticEncoder:
    """A model2vec model: the weighted mean of a table's rows. The whole text counts, however long."""

    def __init__(self, path: Path, name: str) -> None:
        try:
            from model2vec import StaticModel
        except ImportError:
            raise InputError(
                "a static embedding model needs model2vec", path=path, hint="pip install model2vec"
            ) from None
        logging.getLogger("model2vec").setLevel(logging.ERROR)  # it warns that texts are no longer cut
        try:
            self._model: Any = StaticModel.from_pretrained(path, force_download=False, max_length=None)
        except (OSError, ValueError, KeyError) as error:
            raise InputError(f"is not a model that model2vec loads: {error}", path=path) from None
        self.name = name
        self.size = int(self._model.dim)
        self.digest = _digest(path, "model2vec")

    def encode(self, texts: Sequence[str], done: Callable[[int], None]) -> NDArray[np.float32]:
        result = np.empty((len(texts), self.size), np.float32)
        for start in range(0, len(texts), _STATIC_ROWS):
            part = list(texts[start : start + _STATIC_ROWS])
            result[start : start + len(part)] = self._model.encode(part, use_multiprocessing=False)
            done(len(part))
        return result


def _equal_lengths(lengths: Sequence[int]) -> list[list[int]]:
    """Rows in batches of one length each, short ones first. Without padding there is no attention mask, and what an
    encoder makes of a text no longer depends on its neighbours (with padding bfloat16 vectors move by 2e-3)."""
    order = sorted(range(len(lengths)), key=lengths.__getitem__)
    batches: list[list[int]] = []
    for row in order:
        length = max(1, lengths[row])
        most = max(1, min(_ROWS, _TOKENS // length))
        if batches and lengths[batches[-1][0]] == lengths[row] and len(batches[-1]) < most:
            batches[-1].append(row)
        else:
            batches.append([row])
    return batches


def _check_modules(path: Path) -> None:
    """A folder lists the classes it is made of: only the library's own are loaded."""
    modules = _json(path / "modules.json")
    for module in modules if isinstance(modules, list) else []:
        kind = str(module.get("type", "")) if isinstance(module, dict) else ""
        if not kind.startswith(_OURS):
            raise InputError(
                f"wants to load {kind or 'an unnamed class'}", path=path / "modules.json", hint="its code is not run"
            )


def _is_static(path: Path) -> bool:
    """True for a folder of model2vec; some say so only in the list of their modules."""
    config, modules = _json(path / "config.json"), _json(path / "modules.json")
    if isinstance(config, dict) and config.get("model_type") == "model2vec":
        return True
    first = modules[0] if isinstance(modules, list) and modules else None
    return isinstance(first, dict) and str(first.get("type", "")).endswith(".StaticEmbedding")


def _json(path: Path) -> Any:
    if not path.is_file():
        return None
    try:
        return orjson.loads(path.read_bytes())
    except ValueError as error:
        raise InputError(f"is not JSON: {error}", path=path) from None


def _digest(path: Path, settings: str) -> str:
    """Of the model's files, by content, and of how they are used."""
    digest = xxhash.xxh3_128(settings.encode())
    for file in sorted(file for file in path.rglob("*") if file.suffix in _CONTENT):
        digest.update(str(file.relative_to(path)).encode())
        with file.open("rb") as stream:
            while block := stream.read(1 << 22):
                digest.update(block)
    return digest.hexdigest()
