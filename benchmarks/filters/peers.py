"""Other libraries on the same rows: word 5-grams, 128 permutations, threshold 0.7, text to decision.

Runs in an environment of its own, which has pyarrow and what there is of rensa, gaoya, datasketch, text-dedup,
datatrove and semhash: `python peers.py ROWS.parquet MODEL [COUNT]`. Prints one JSON object a library. A library may
have an environment to itself: those that are not there are left out.

    python3 -m venv ONE && ONE/bin/pip install pyarrow numpy 'xxhash<4' rensa gaoya datasketch semhash \\
        datatrove spacy regex
    python3 -m venv TWO && TWO/bin/pip install pyarrow datasets click click-option-group numpy regex rich scipy \\
        xxhash zstandard psutil tqdm ftfy bitarray setuptools && TWO/bin/pip install --no-deps text-dedup

The first row of a pair stays, as here; of the rows that a library says are alike the one that is most alike counts as
the survivor, which is the kindest reading. text-dedup and datatrove make clusters, of which one row stays: their first
is taken for the survivor. They read and write files, and their seconds hold that. datatrove splits words as it does by
itself (with spaCy). semhash compares static embeddings (of the model2vec folder MODEL) at its own threshold, which is
no Jaccard similarity; what of its removals is `under` is told all the same.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import json
import os
import resource
import struct
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

THRESHOLD, PERMUTATIONS = 0.7, 128
BANDS, ROWS = 16, 8  # of a band; gaoya 25 of 5, which is what a threshold of 0.7 wants for a recall of 0.99
UNRELATED, IDENTICAL = 0, -1
_QUIET = {"TQDM_DISABLE": "1", "HF_DATASETS_DISABLE_PROGRESS_BARS": "1"}


def main() -> None:
    import pyarrow.parquet as pq

    os.environ.update(_QUIET)
    count = int(sys.argv[3]) if len(sys.argv) > 3 else 100_000
    rows = next(pq.ParquetFile(sys.argv[1]).iter_batches(count, columns=["text", "edited"]))
    texts, edited = rows.column("text").to_pylist(), rows.column("edited").to_pylist()
    judges: tuple[tuple[str, Callable[[list[str]], Iterator[Sequence[int]]]], ...] = (
        ("rensa", rensa),
        ("gaoya", gaoya),
        ("datasketch", datasketch),
        ("text_dedup", text_dedup),
        ("datatrove", datatrove),
        ("semhash", partial(semhash, model=sys.argv[2])),
    )
    for name, judge in judges:
        if importlib.util.find_spec(name) is None or (name == "semhash" and not sys.argv[2]):
            continue
        importlib.import_module(name)
        begin = _cpu()
        found = list(judge(texts))
        spent = _cpu() - begin
        told = {"name": name, "rows": len(texts), "rows_cpu_s": len(texts) / spent}
        print(json.dumps(told | quality(texts, edited, found)), flush=True)


def meaning(path: str, model: str) -> None:
    """`python peers.py meaning TEXTS.json MODEL`: what semhash removes of the texts, for filters-semantic."""
    texts = json.loads(Path(path).read_bytes())
    importlib.import_module("semhash")
    begin = _cpu()
    found = list(semhash(texts, model))
    spent = _cpu() - begin
    print(json.dumps({"cpu": spent, "removed": [[row, match[0]] for row, match in enumerate(found) if match]}))


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


def text_dedup(texts: list[str]) -> Iterator[Sequence[int]]:
    import pyarrow as pa
    import pyarrow.parquet as pq
    from text_dedup import minhash
    from text_dedup.utils import IOArgs, MetaArgs, MinHashArgs

    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(sys.stderr):
        rows = f"{folder}/rows.parquet"
        pq.write_table(pa.table({"text": texts}), rows)
        minhash.main.callback(
            io_args=IOArgs(
                path="parquet", data_files=rows, split="train", output=f"{folder}/out", cache_dir=folder, num_proc=1
            ),
            meta_args=MetaArgs(column="text"),
            minhash_args=MinHashArgs(ngram=5, num_perm=PERMUTATIONS, threshold=THRESHOLD, b=BANDS, r=ROWS),
        )
    yield from _first_stays([minhash.uf.find(number) for number in range(len(texts))])


def datatrove(texts: list[str]) -> Iterator[Sequence[int]]:
    from datatrove.data import Document
    from datatrove.pipeline.dedup.minhash import (
        MinhashConfig,
        MinhashDedupBuckets,
        MinhashDedupCluster,
        MinhashDedupSignature,
    )

    config = MinhashConfig(n_grams=5, num_buckets=BANDS, hashes_per_bucket=ROWS)
    with tempfile.TemporaryDirectory() as folder:
        at = {name: f"{folder}/{name}" for name in ("signatures", "pairs", "clusters")}
        signatures = MinhashDedupSignature(at["signatures"], config)
        signatures.run(Document(text, str(number)) for number, text in enumerate(texts))
        buckets = MinhashDedupBuckets(at["signatures"], at["pairs"], config=config)
        for bucket in range(BANDS):
            for _ in buckets.run(None, bucket, BANDS) or ():
                pass
        clusters = MinhashDedupCluster(at["pairs"], at["clusters"], config, save_cluster_id=True)
        for _ in clusters.run() or ():
            pass
        data = Path(f"{at['clusters']}/000000.clusters").read_bytes()
    cluster = dict(struct.iter_unpack("<II", data))
    yield from _first_stays([cluster.get(number, -1 - number) for number in range(len(texts))])


def _first_stays(clusters: list[int]) -> Iterator[Sequence[int]]:
    """For every row the first of its cluster; nothing for that one itself."""
    first: dict[int, int] = {}
    for number, cluster in enumerate(clusters):
        yield [first[cluster]] if first.setdefault(cluster, number) != number else ()


def _cpu() -> float:
    """CPU seconds of this process, and of those that it has started and that have ended."""
    return sum(
        used.ru_utime + used.ru_stime
        for used in map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    )


def _hash(data: bytes) -> int:
    import xxhash

    return xxhash.xxh32_intdigest(data)


if __name__ == "__main__":
    meaning(*sys.argv[2:]) if sys.argv[1] == "meaning" else main()
