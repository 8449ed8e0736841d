"""Texts to vectors: one door to every embedding model.

    embedder = load_embedder("all-MiniLM-L6-v2", folder=workspace)
    vectors = embedder.embed(texts)          # float32, shape (n, d), rows of unit length

Two kinds of models: sentence-transformers (an encoder: 50 to 100 texts a CPU second, sees meaning) and model2vec (a
table of word vectors: thousands a second, sees words). Both come from a local folder or from the catalogue; nothing is
fetched here.

The vector of a text depends on the text and the model alone, not on the texts beside it: encoders get texts of equal
length together, so nothing is padded, and every vector is rounded to half precision before it is used, which is also
how the cache keeps it. So a run that is cut into other batches, or goes on from the cache, decides the same.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import xxhash
from numpy.typing import NDArray

from distill.assets import workspace_of
from distill.errors import InputError
from distill.filters.semantic.cache import EmbeddingCache

__all__ = ["DEFAULT_MODEL", "Embedder", "EmbeddingProgress", "Encoder", "load_embedder", "resolve_model"]

DEFAULT_MODEL = "all-MiniLM-L6-v2"
STATIC = "static"
"""The name of the static model that is made from the default model on this machine."""

EmbeddingProgress = Callable[[int, int], None]
"""Called with texts embedded, of texts in all."""

_GROUP = 4096  # texts looked up and stored at a time: what a killed process loses at most


class Encoder(Protocol):
    """A model: texts to vectors of any length, always the same ones for the same text."""

    name: str
    digest: str
    """Of everything that decides a vector: weights, tokenizer, precision."""
    size: int
    """Numbers in a vector."""

    def encode(self, texts: Sequence[str], done: Callable[[int], None]) -> NDArray[np.float32]:
        """Shape (n, size). Calls `done` with the number of texts finished since the last call."""
        ...


class Embedder:
    """Embeds texts with one model, each different text once, and remembers what it has embedded."""

    def __init__(self, encoder: Encoder, cache: EmbeddingCache | None = None) -> None:
        self._encoder = encoder
        self._cache = cache
        self.encoded = 0
        """Texts that the model was run on; the others came from the cache or were repeated."""

    @property
    def name(self) -> str:
        return self._encoder.name

    @property
    def digest(self) -> str:
        return self._encoder.digest

    @property
    def size(self) -> int:
        return self._encoder.size

    def embed(self, texts: Sequence[str], *, progress: EmbeddingProgress | None = None) -> NDArray[np.float32]:
        """Float32, shape (n, size), rows of unit length; zeros for a text in which the model knows no word."""
        keys = [xxhash.xxh3_128_digest(text.encode("utf-8", "surrogatepass")) for text in texts]
        first: dict[bytes, int] = {}
        for place, key in enumerate(keys):
            first.setdefault(key, place)
        rows = {key: row for row, key in enumerate(first)}
        unique = np.zeros((len(first), self.size), np.float16)
        pending = list(first.items())
        done = 0
        for start in range(0, len(pending), _GROUP):
            group = pending[start : start + _GROUP]
            known = self._cache.get([key for key, _ in group]) if self._cache is not None else {}
            for key, vector in known.items():
                unique[rows[key]] = vector
            done = start + len(known)
            missing = [(key, texts[place]) for key, place in group if key not in known]
            if missing:
                fresh = self._encode([text for _, text in missing], done, len(pending), progress)
                unique[[rows[key] for key, _ in missing]] = fresh
                if self._cache is not None:
                    self._cache.put([key for key, _ in missing], fresh)
            elif progress is not None:
                progress(done, len(pending))
        return _unit(unique)[[rows[key] for key in keys]] if keys else np.zeros((0, self.size), np.float32)

    def _encode(
        self, texts: list[str], before: int, total: int, progress: EmbeddingProgress | None
    ) -> NDArray[np.float16]:
        finished = before

        def done(count: int) -> None:
            nonlocal finished
            finished += count
            if progress is not None:
                progress(finished, total)

        vectors = self._encoder.encode(texts, done)
        self.encoded += len(texts)
        return _unit(vectors).astype(np.float16)


def load_embedder(
    model: str = DEFAULT_MODEL,
    *,
    folder: Path | None = None,
    cache: bool = True,
    note: Callable[[str], None] = lambda text: None,
) -> Embedder:
    """The embedder of a model.

    Args:
        model: a name of the catalogue in any case (`all-MiniLM-L6-v2`, with or without its publisher), `static`, or a
            local folder of sentence-transformers or model2vec.
        folder: where relative paths start; its workspace keeps the cache.
        note: told when something takes long (a static model is made on first use).

    Raises:
        InputError: no such model, not here, or not an embedding model; says how to get it.
    """
    folder = folder or Path.cwd()
    path = resolve_model(model, folder, note)
    # Imported here: torch is loaded when an encoder is, and only then.
    from distill.filters.semantic.backends import open_encoder

    encoder = open_encoder(path, name=model)
    kept = EmbeddingCache.open(workspace_of(folder) / ".distill", encoder.digest, encoder.size) if cache else None
    return Embedder(encoder, kept)


def resolve_model(model: str, folder: Path, note: Callable[[str], None] = lambda text: None) -> Path:
    """The local folder that a name or a path means.

    Raises:
        InputError: there is none; says how to get it.
    """
    from distill import models

    if model.casefold() == STATIC:  # a folder of that name is `./static`
        from distill.filters.semantic.static import static_folder

        return static_folder(DEFAULT_MODEL.casefold(), note)
    if (folder / Path(model).expanduser()).is_dir():
        return (folder / Path(model).expanduser()).resolve()
    name = model.casefold().rsplit("/", 1)[-1]
    known = models.catalogue()
    if name not in known:
        options = ", ".join([*(n for n, m in known.items() if "embedding" in m.roles), STATIC])
        hint = f"a local folder, or one of {options}"
        raise InputError(f"no such embedding model: {model}", field="model", hint=hint)
    if "embedding" not in known[name].roles:
        raise InputError(f"{model} is not an embedding model", field="model", hint=f"for example {DEFAULT_MODEL}")
    return models.path(name)


def _unit(vectors: NDArray[np.floating]) -> NDArray[np.float32]:
    wide = vectors.astype(np.float32)
    lengths = np.sqrt(np.einsum("ij,ij->i", wide, wide, dtype=np.float64))
    lengths[lengths == 0] = 1.0
    wide /= lengths[:, None].astype(np.float32)
    return wide
