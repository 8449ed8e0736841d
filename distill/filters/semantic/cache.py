"""Vectors that were computed before, by content: `<workspace>/.distill/embeddings-<model digest>.sqlite`.

One file a model, shared by all runs and processes of a workspace (WAL: readers never wait; a writer waits for
another one). It is a cache: whatever goes wrong with the file costs time, never a result, so a cache that cannot be
used is left alone and texts are embedded anew. When it has reached its bound the oldest vectors leave.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

__all__ = ["EmbeddingCache"]

_MAX_BYTES = 2 << 30
_OVERHEAD = 64  # bytes of a row besides its vector: key, index entry, headers
_ASK = 500  # keys in one query


class EmbeddingCache:
    """16-byte keys to half-precision vectors. Open it with `open`."""

    def __init__(self, connection: sqlite3.Connection, path: Path, size: int, max_rows: int) -> None:
        self.path = path
        self._db: sqlite3.Connection | None = connection
        self._size = size
        self._max_rows = max_rows

    @classmethod
    def open(cls, folder: Path, digest: str, size: int, *, max_bytes: int = _MAX_BYTES) -> EmbeddingCache | None:
        """The cache of a model in `folder`; None where it cannot be opened."""
        path = folder / f"embeddings-{digest[:16]}.sqlite"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            db = sqlite3.connect(path, timeout=30, isolation_level=None, check_same_thread=False)
            db.execute("PRAGMA journal_mode=WAL")
            # A cache may forget its last second after a power cut.
            db.execute("PRAGMA synchronous=OFF")
            db.execute(
                "CREATE TABLE IF NOT EXISTS vectors "
                "(id INTEGER PRIMARY KEY, key BLOB NOT NULL UNIQUE, vector BLOB NOT NULL)"
            )
        except (OSError, sqlite3.Error):
            return None
        return cls(db, path, size, max(1, max_bytes // (2 * size + _OVERHEAD)))

    def get(self, keys: Sequence[bytes]) -> dict[bytes, NDArray[np.float16]]:
        """What is known of `keys`."""
        found: dict[bytes, NDArray[np.float16]] = {}
        if self._db is None:
            return found
        try:
            for start in range(0, len(keys), _ASK):
                part = list(keys[start : start + _ASK])
                marks = ",".join("?" * len(part))
                rows = self._db.execute(f"SELECT key, vector FROM vectors WHERE key IN ({marks})", part)  # noqa: S608
                for key, vector in rows:
                    if len(vector) == 2 * self._size:
                        found[key] = np.frombuffer(vector, np.float16)
        except sqlite3.Error:
            self.close()
            return {}
        return found

    def put(self, keys: Sequence[bytes], vectors: NDArray[np.float16]) -> None:
        """Keep vectors, shape (n, size); the oldest leave beyond the bound."""
        if self._db is None:
            return
        rows = ((key, vector.tobytes()) for key, vector in zip(keys, vectors, strict=True))
        try:
            self._db.execute("BEGIN IMMEDIATE")
            self._db.executemany("INSERT OR IGNORE INTO vectors (key, vector) VALUES (?, ?)", rows)
            self._db.execute(
                "DELETE FROM vectors WHERE id <= (SELECT coalesce(max(id), 0) FROM vectors) - ?", (self._max_rows,)
            )
            self._db.execute("COMMIT")
        except sqlite3.Error:
            self.close()

    def close(self) -> None:
        """Later calls find and keep nothing."""
        if self._db is not None:
            with contextlib.suppress(sqlite3.Error):
                self._db.close()
        self._db = None
