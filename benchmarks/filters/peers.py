"""Other libraries on the same rows: word 5-grams, 128 permutations, threshold 0.7, text to decision.

Runs in an environment of its own, which has pyarrow and what there is of rensa, gaoya, datasketch and semhash:
`python peers.py ROWS.parquet MODEL [COUNT]`. Prints one JSON object a library. semhash compares static embeddings (of
the model2vec folder MODEL) at its own threshold, which is no Jaccard similarity; what of its removals is `under` is
told all the same. The first row of a pair stays, as here; of the
rows that a library says are alike the one that is most alike counts as the survivor, which is the kindest reading.
"""

from __future__ import annotations

import importlib.util
import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial

THRESHOLD, PERMUTATIONS = 0.7, 128
BANDS, ROWS = 16, 8  # of a band; gaoya 25 of 5, which is what a threshold of 0.7 wants for a recall of 0.99
UNRELATED, IDENTICAL = 0, -1


def main() -> None:
    import pyarrow.parquet as pq

    count = int(sys.argv[3]) if len(sys.argv) > 3 else 100_000
    rows = next(pq.ParquetFile(sys.argv[1]).iter_batches(count, columns=["text", "edited"]))
    texts, edited = rows.column("text").to_pylist(), rows.column("edited").to_pylist()
    judges: tuple[tuple[str, Callable[[list[str]], Iterator[Sequence[int]]]], ...] = (
        ("rensa", rensa),
        ("gaoya", gaoya),
        ("datasketch", datasketch),
        ("semhash", partial(semhash, model=sys.argv[2])),
    )
    for name, judge in judges:
        if importlib.util.find_spec(name) is None:
            continue
        begin = time.process_time()
        found = list(judge(texts))
        spent = time.process_time() - begin
        told = {"name": name, "rows": len(texts), "rows_cpu_s": len(texts) / spent}
        print(json.dumps(told | quality(texts, edited, found)), flush=True)


def quality(texts: list[str], edited: list[int], found: list[Sequence[int]]) -> dict[str, object]:
    """What was found by kind of row, and how many of the removed rows are not alike enough to what they repeat."""
    gone = [bool(matches) for matches in found]
    total = {kind: edited.count(kind) for kind in (5, 10, 20, IDENTICAL)}
    total[IDENTICAL] -= 1  # the first of them stays
    share = {
        kind: sum(gone[row] for row in range(len(texts)) if edited[row] == kind) / max(1, total[kind]) for kind in total
    }
    true = [
        max(jaccard(texts[row], texts[other]) for other in matches)
        for row, matches in enumerate(found)
        if matches and len(matches) < 200
    ]
    return {
        "found": list(share.values()),
        "unrelated": sum(gone[row] for row in range(len(texts)) if edited[row] == UNRELATED),
        "under": sum(similarity < THRESHOLD for similarity in true),
        "least": min(true, default=1.0),
    }


def jaccard(left: str, right: str) -> float:
    one, other = set(shingles(left)), set(shingles(right))
    return len(one & other) / len(one | other)


def shingles(text: str) -> list[str]:
    words = text.lower().split()
    return [" ".join(words[i : i + 5]) for i in range(max(1, len(words) - 4))]


def rensa(texts: list[str]) -> Iterator[Sequence[int]]:
    from rensa import RMinHash, RMinHashLSH

    lsh = RMinHashLSH(threshold=THRESHOLD, num_perm=PERMUTATIONS, num_bands=BANDS)
    for number, text in enumerate(texts):
        minhash = RMinHash(num_perm=PERMUTATIONS, seed=1)
        minhash.update(shingles(text))
        found = lsh.query(minhash)
        if not found:
            lsh.insert(number, minhash)
        yield found


def gaoya(texts: list[str]) -> Iterator[Sequence[int]]:
    from gaoya.minhash import MinHashStringIndex

    index = MinHashStringIndex(32, THRESHOLD, 25, 5, None, "word", True, (5, 5), id_container="vec")
    for number, text in enumerate(texts):
        found = index.query(text)
        if not found:
            index.insert_document(number, text)
        yield found


def datasketch(texts: list[str]) -> Iterator[Sequence[int]]:
    from datasketch import MinHash, MinHashLSH

    lsh = MinHashLSH(threshold=THRESHOLD, num_perm=PERMUTATIONS)
    for number, text in enumerate(texts):
        minhash = MinHash(num_perm=PERMUTATIONS, hashfunc=_hash)
        minhash.update_batch([shingle.encode() for shingle in shingles(text)])
        found = lsh.query(minhash)
        if not found:
            lsh.insert(number, minhash, check_duplication=False)
        yield found


def semhash(texts: list[str], model: str) -> Iterator[Sequence[int]]:
    from model2vec import StaticModel
    from semhash import SemHash

    records = [{"id": str(number), "text": text} for number, text in enumerate(texts)]
    hashed = SemHash.from_records(records, columns=["text"], model=StaticModel.from_pretrained(model))
    told = hashed.self_deduplicate().filtered
    found = {int(each.record["id"]): [int(each.duplicate_of["id"])] for each in told}
    for number in range(len(texts)):
        yield found.get(number, ())


def _hash(data: bytes) -> int:
    import xxhash

    return xxhash.xxh32_intdigest(data)


if __name__ == "__main__":
    main()
