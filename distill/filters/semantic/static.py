# transformers and model2vec carry no usable types; everything untyped stays inside this file.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
"""A static model made on this machine: every token of an encoder's vocabulary run through the encoder once.

The method is model2vec's (Tulkens and van Dongen 2024, github.com/MinishLab/model2vec): the mean hidden state of each
token, reduced to 256 dimensions by PCA, weighted by how rare the token is. It takes about half a minute of CPU, needs
nothing but the encoder's own files, and lies beside them in the model cache.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from distill import models
from distill.errors import InputError
from distill.io import numeric
from distill.models.cache import home, locked

__all__ = ["static_folder"]

_DIMENSIONS = 256


def static_folder(encoder: str, note: Callable[[str], None] = lambda text: None) -> Path:
    """The static model of an encoder of the catalogue; made on first use.

    Raises:
        InputError: neither the static model nor what it is made from is here; says how to get it.
    """
    place = home(encoder) / "static"
    if (place / "config.json").is_file():
        return place
    try:
        source = models.path(encoder)
    except InputError as error:
        raise InputError(
            "there is no static model on this machine, and nothing to make it from", hint=error.hint
        ) from None
    if importlib.util.find_spec("model2vec") is None or importlib.util.find_spec("skeletoken") is None:
        raise InputError(
            "there is no static model on this machine",
            hint=f"pip install model2vec skeletoken: it is then made from {encoder} here, or give a model2vec folder",
        )
    with locked(encoder, waiting=lambda: note("waiting for another process that makes the static model")):
        if not (place / "config.json").is_file():
            note(f"making the static model from {encoder}, once (about half a minute)")
            fresh = home(encoder) / f".static.{os.getpid()}.tmp"
            shutil.rmtree(fresh, ignore_errors=True)
            try:
                _make(source, fresh)
                shutil.rmtree(place, ignore_errors=True)
                os.replace(fresh, place)
            finally:
                shutil.rmtree(fresh, ignore_errors=True)
    return place


def _make(source: Path, target: Path) -> None:
    numeric.prepare()
    from model2vec.distill import distill_from_model
    from transformers import AutoModel, AutoTokenizer
    from transformers.utils import logging

    logging.disable_progress_bar()
    encoder: Any = AutoModel.from_pretrained(source, local_files_only=True, use_safetensors=True)
    tokenizer: Any = AutoTokenizer.from_pretrained(source, local_files_only=True)
    static: Any = distill_from_model(encoder, tokenizer, device="cpu", pca_dims=_DIMENSIONS)
    static.save_pretrained(target)
