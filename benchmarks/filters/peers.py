"""Other libraries on the same rows: word 5-grams, 128 permutations, threshold 0.7, text to decision.

Runs in an environment of its own, which has pyarrow, rensa and datasketch: `python peers.py ROWS.parquet [COUNT]`.
Prints one JSON object a library. Neither verifies its candidates; the first row of a pair stays, as here.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator

THRESHOLD, PERMUTATIONS = 0.7, 128


def main() -> None:
    import pyarrow.parquet as pq

    count = int(sys.argv[2]) if len(sys.argv) > 2 else 20_000
    texts = next(pq.ParquetFile(sys.argv[1]).iter_batches(count, columns=["text"])).column("text").to_pylist()
    for name, judge in (("rensa", rensa), ("datasketch", datasketch)):
        begin = time.process_time()
        removed = sum(judge(texts))
        spent = time.process_time() - begin
        print(json.dumps({"name": name, "rows": len(texts), "rows_cpu_s": len(texts) / spent, "removed": removed}))


def shingles(text: str) -> list[str]:
    words = text.lower().split()
    return [" ".join(words[i : i + 5]) for i in range(max(1, len(words) - 4))]


def rensa(texts: list[str]) -> Iterator[bool]:
    from rensa import RMinHash, RMinHashLSH

    lsh = RMinHashLSH(threshold=THRESHOLD, num_perm=PERMUTATIONS, num_bands=16)
    for number, text in enumerate(texts):
        minhash = RMinHash(num_perm=PERMUTATIONS, seed=1)
        minhash.update(shingles(text))
        found = bool(lsh.query(minhash))
        if not found:
            lsh.insert(number, minhash)
        yield found


def datasketch(texts: list[str]) -> Iterator[bool]:
    from datasketch import MinHash, MinHashLSH

    lsh = MinHashLSH(threshold=THRESHOLD, num_perm=PERMUTATIONS)
    for number, text in enumerate(texts):
        minhash = MinHash(num_perm=PERMUTATIONS, hashfunc=_hash)
        minhash.update_batch([shingle.encode() for shingle in shingles(text)])
        found = bool(lsh.query(minhash))
        if not found:
            lsh.insert(number, minhash, check_duplication=False)
        yield found


def _hash(data: bytes) -> int:
    import xxhash

    return xxhash.xxh32_intdigest(data)


if __name__ == "__main__":
    main()
