from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from distill.errors import InputError
from distill.filters.semantic.cache import EmbeddingCache
from distill.filters.semantic.embedding import load_embedder
from tests.support.tiny_embedder import make_encoder, make_static

TEXT = "where is my card it was lost yesterday please send another one how do i bake bread at home"
WORDS = TEXT.split()
TEXTS = [
    "where is my card",
    "my card was lost yesterday please send another one",
    "card",
    "how do i bake bread at home",
    "where is my card",
    "is it my card",
]


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_encoder(tmp_path_factory.mktemp("models") / "encoder", WORDS)


@pytest.fixture(scope="module")
def static(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_static(tmp_path_factory.mktemp("models") / "static", WORDS)


@pytest.mark.parametrize("kind", ["encoder", "static"])
def test_rows_are_float32_of_unit_length_and_close_where_words_are_shared(kind, request, tmp_path):
    embedder = load_embedder(str(request.getfixturevalue(kind)), folder=tmp_path)
    vectors = embedder.embed(TEXTS)
    assert vectors.dtype == np.float32
    assert vectors.shape == (6, embedder.size)
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
    similar = vectors @ vectors.T
    assert similar[0, 4] == pytest.approx(1)
    assert similar[0, 5] > similar[0, 3] + 0.2
    assert embedder.embed([]).shape == (0, embedder.size)


@pytest.mark.parametrize("kind", ["encoder", "static"])
def test_a_vector_does_not_depend_on_the_texts_beside_it_nor_on_the_cache(kind, request, tmp_path):
    path = str(request.getfixturevalue(kind))
    together = load_embedder(path, folder=tmp_path, cache=False).embed(TEXTS)
    alone = np.concatenate([load_embedder(path, folder=tmp_path, cache=False).embed([text]) for text in TEXTS])
    load_embedder(path, folder=tmp_path).embed(TEXTS[:3])
    cached = load_embedder(path, folder=tmp_path)
    assert (together == alone).all()
    assert (cached.embed(TEXTS) == together).all()
    assert cached.encoded == 2  # three were known, one is repeated
    assert not np.isnan(together).any()


def test_a_text_without_a_known_word_is_zeros(static, tmp_path):
    assert not load_embedder(str(static), folder=tmp_path).embed(["", "quux"]).any()


def test_progress_counts_every_different_text_once(encoder, tmp_path):
    seen: list[tuple[int, int]] = []
    load_embedder(str(encoder), folder=tmp_path, cache=False).embed(TEXTS, progress=lambda *done: seen.append(done))
    assert seen[-1] == (5, 5)
    assert seen == sorted(seen)


def test_what_cannot_be_used_says_what_to_do(encoder, tmp_path, monkeypatch):
    monkeypatch.setenv("DISTILL_CACHE", str(tmp_path / "empty"))
    with pytest.raises(InputError, match="distill models pull all-minilm-l6-v2"):
        load_embedder("sentence-transformers/all-MiniLM-L6-v2", folder=tmp_path)
    with pytest.raises(InputError, match="no static model"):
        load_embedder("static", folder=tmp_path)
    with pytest.raises(InputError, match="no such embedding model"):
        load_embedder("no-such-model", folder=tmp_path)
    with pytest.raises(InputError, match="not an embedding model"):
        load_embedder("SmolLM2-135M-Instruct", folder=tmp_path)
    (tmp_path / "empty-folder").mkdir()
    with pytest.raises(InputError, match="holds no embedding model"):
        load_embedder("empty-folder", folder=tmp_path)


def test_a_folder_cannot_name_code_to_run(encoder, tmp_path):
    import shutil

    shutil.copytree(encoder, tmp_path / "evil")
    modules = tmp_path / "evil" / "modules.json"
    listed = json.loads(modules.read_text())
    listed[0]["type"] = "os.system"
    modules.write_text(json.dumps(listed))
    with pytest.raises(InputError, match=r"wants to load os\.system"):
        load_embedder("evil", folder=tmp_path)


def test_the_cache_is_bounded_and_survives_damage(tmp_path):
    keys = [bytes([number]) * 16 for number in range(100)]
    vectors = np.arange(400, dtype=np.float16).reshape(100, 4)
    cache = EmbeddingCache.open(tmp_path, "d" * 32, 4, max_bytes=(8 + 64) * 60)
    assert cache is not None
    cache.put(keys[:50], vectors[:50])
    cache.put(keys, vectors)
    found = cache.get(keys)
    assert len(found) == 60
    assert keys[-1] in found
    assert (found[keys[-1]] == vectors[-1]).all()
    cache.close()
    assert cache.get(keys) == {}
    cache.path.write_bytes(b"not a database" * 1000)
    for wal in tmp_path.glob("*-wal"):
        wal.unlink()
    assert EmbeddingCache.open(tmp_path, "d" * 32, 4) is None
    (tmp_path / "file").write_text("")
    assert EmbeddingCache.open(tmp_path / "file", "d" * 32, 4) is None


def test_two_processes_share_the_cache(tmp_path):
    script = """
import sys, numpy as np
from pathlib import Path
from distill.filters.semantic.cache import EmbeddingCache
cache = EmbeddingCache.open(Path(sys.argv[1]), "d" * 32, 2)
for start in range(0, 400, 20):
    keys = [number.to_bytes(16, "big") for number in range(start, start + 40)]
    cache.get(keys)
    cache.put(keys, np.full((40, 2), start, np.float16))
"""
    runs = [subprocess.Popen([sys.executable, "-c", script, str(tmp_path)]) for _ in range(2)]
    assert [run.wait(60) for run in runs] == [0, 0]
    (file,) = tmp_path.glob("*.sqlite")
    with sqlite3.connect(file) as db:
        assert db.execute("SELECT count(*), count(DISTINCT key) FROM vectors").fetchone() == (420, 420)


def test_importing_the_filters_does_not_import_torch():
    code = "import sys, distill.filters.semantic.embedding; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
