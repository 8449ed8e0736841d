"""Near-duplicates, from text to decision, one thread: speed, memory and what is found.

The corpus has known edits (benchmarks/filters/corpus.py). Every run is a process of its own that streams the corpus
from Parquet; CPU seconds are those of the filter, peak memory that of the whole process. `true` is measured here, on
sets of Python strings: the similarity of each removed row and the row it is said to repeat.

    python -m benchmarks filters-dedup            100,000 and 1,000,000 rows
    DEDUP_ROWS=20000 python -m benchmarks filters-dedup
    DEDUP_PEERS=/path/to/python[:/another] …      interpreters with other libraries (see peers.py), same rows
    DEDUP_BANKING77=/path/to/train.csv …          short labelled rows: how many of different intents are merged
"""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.filters.corpus import UNRELATED, generate
from benchmarks.harness import table

_RUNS: dict[str, dict[str, Any]] = {
    "default (5 characters at 0.7)": {},
    "5 words at 0.7": {"unit": "word", "size": 5},
}


def main() -> None:
    sizes = [int(size) for size in os.environ.get("DEDUP_ROWS", "100000,1000000").split(",")]
    with tempfile.TemporaryDirectory() as folder:
        speed: list[list[object]] = []
        quality: list[list[object]] = []
        for rows in sizes:
            path = Path(folder) / f"{rows}.parquet"
            _write(path, rows)
            for name, options in _RUNS.items():
                done = _child("measure", str(path), json.dumps(options))
                speed.append(
                    [rows, name, *(done[key] for key in ("cpu", "us_row", "rows_cpu_s", "index_mb", "peak_mb"))]
                )
                quality.append([rows, name, *done["found"].values(), done["unrelated"], done["under"], done["least"]])
        table(["rows", "shingles", "CPU s", "µs/row", "rows/CPU-s", "index MB", "process peak MB"], speed)
        print()
        edits = ["5 % edited", "10 %", "20 %", "identical"]
        table(["rows", "shingles", *edits, "unrelated removed", "removed under threshold", "least true"], quality)
        print()
        for rows in sizes:
            single = _child("single", str(Path(folder) / f"{rows}.parquet"))
            print(f"one row at a time into an index of {single['texts']:,}: {single['us_row']:.0f} µs a row")
        long = Path(folder) / "long.parquet"
        _write(long, 4_000, words=500)
        done = _child("measure", str(long), "{}")
        print(
            f"\n4,000 rows of 500 words, compared by 3 words: {done['found']}, unrelated removed {done['unrelated']}\n"
        )
        if peers := os.environ.get("DEDUP_PEERS"):
            _peers(peers.split(":"), Path(folder) / f"{sizes[0]}.parquet", speed, quality)
    if banking := os.environ.get("DEDUP_BANKING77"):
        _intents(Path(banking))


def _write(path: Path, rows: int, *, words: int = 80) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    writer = None
    for part in generate(rows, words=words):
        ids = [str(part.first + place) for place in range(len(part.texts))]
        made = pa.table({"id": ids, "text": part.texts, "edited": part.edited, "source": part.source})
        writer = writer or pq.ParquetWriter(path, made.schema)
        writer.write_table(made)
    assert writer is not None
    writer.close()


def _child(*arguments: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.filters.dedup", *arguments]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1])


def _measure(path: str, options: dict[str, Any]) -> None:
    import numpy as np
    import pyarrow.parquet as pq

    from distill.filters.near.index import NearIndex
    from distill.io.memory import peak_memory

    NearIndex(**options).judge(["loads the kernels", "loads the kernels"], ["a", "b"])
    index, cpu, count = NearIndex(**options), 0.0, 0
    found: dict[int, list[int]] = {5: [0, 0], 10: [0, 0], 20: [0, 0], -1: [0, 0], UNRELATED: [0, 0]}
    pairs: list[tuple[int, int, float]] = []
    file = pq.ParquetFile(path, pre_buffer=False)  # or the reader would hold the whole file
    for batch in file.iter_batches(4096, use_threads=False):
        texts, ids = batch.column("text").to_pylist(), batch.column("id").to_pylist()
        begin = time.process_time()
        matches = index.judge(texts, ids)
        cpu += time.process_time() - begin
        gone = np.array([match is not None for match in matches])
        edited = _numbers(batch.column("edited"))
        for kind, totals in found.items():
            totals[0] += int((gone & (edited == kind)).sum())
            totals[1] += int((edited == kind).sum())
        if len(pairs) < 20_000:
            pairs += [(count + row, int(m.id), m.similarity) for row, m in enumerate(matches) if m is not None]
        count += len(texts)
    peak, size = peak_memory() / 1e6, index.nbytes / 1e6
    del index
    true = _true(file, pairs, options)
    cluster = found[-1]
    print(
        json.dumps(
            {
                "cpu": cpu,
                "us_row": cpu / count * 1e6,
                "rows_cpu_s": round(count / cpu),
                "index_mb": round(size),
                "peak_mb": round(peak),
                "found": {kind: found[kind][0] / max(1, found[kind][1]) for kind in (5, 10, 20)}
                | {"identical": cluster[0] / max(1, cluster[1] - 1)},
                "unrelated": found[UNRELATED][0],
                "under": sum(similarity < 0.7 for similarity in true),
                "least": min(true, default=1.0),
            }
        )
    )


def _numbers(column: Any) -> Any:
    """The numbers of a column, without `to_numpy`: that imports pandas, whose 70 MB are no part of a filter."""
    import numpy as np

    return np.frombuffer(column.buffers()[1], np.int64)[column.offset : column.offset + len(column)]


def _true(file: Any, pairs: list[tuple[int, int, float]], options: dict[str, Any]) -> list[float]:
    """Jaccard similarity of each pair, on sets of strings."""
    texts = file.read(["text"]).column("text")

    def shingles(row: int) -> set[Any]:
        text = " ".join(texts[row].as_py().casefold().split())
        words = text.split()
        by_words = options.get("unit") == "word" or len(words) > 300
        units, size = (words, options.get("size", 3)) if by_words else (text, 5)
        return {tuple(units[i : i + size]) for i in range(max(1, len(units) - size + 1))}

    out: list[float] = []
    for row, other, similarity in pairs:
        left, right = shingles(row), shingles(other)
        out.append(len(left & right) / len(left | right))
        assert abs(out[-1] - similarity) < 1e-9, (row, other, similarity, out[-1])
    return out


def _single(path: str) -> None:
    """The last 2,000 rows of a file, one at a time, into an index of those before them."""
    import pyarrow.parquet as pq

    from distill.filters.near.index import NearIndex

    file, index = pq.ParquetFile(path, pre_buffer=False), NearIndex()
    before, single = file.metadata.num_rows - 2_000, list[str]()
    for batch in file.iter_batches(4096, columns=["text"], use_threads=False):
        texts = batch.column("text").to_pylist()
        index.judge(texts[:before], ["x"] * len(texts[:before]))
        single += texts[before:]
        before = max(before - len(texts), 0)
    texts = len(index)
    begin = time.process_time()
    for number, text in enumerate(single):
        index.judge([text], [str(number)])
    spent = (time.process_time() - begin) / len(single)
    print(json.dumps({"texts": texts, "us_row": spent * 1e6}))


def _peers(pythons: list[str], path: Path, speed: list[list[object]], quality: list[list[object]]) -> None:
    """Other libraries on the same rows, in their own environments; ratios are to ours with 5 words. semhash compares by
    meaning instead: it gets the static model that our `semantic` steps make, and its own threshold."""
    from distill.errors import InputError
    from distill.filters.semantic.embedding import DEFAULT_MODEL
    from distill.filters.semantic.static import static_folder

    script = Path(__file__).with_name("peers.py")
    try:
        model = str(static_folder(DEFAULT_MODEL.casefold()))
    except InputError as error:
        print(f"without semhash: {error} ({error.hint})\n")
        model = ""
    arguments = [str(script), str(path), model]
    said = [subprocess.run([python, *arguments], check=True, stdout=subprocess.PIPE, text=True) for python in pythons]
    ours = float(str(speed[1][4]))
    rows: list[list[object]] = [["distill, every removal verified", speed[0][0], round(ours), 1.0, *quality[1][2:]]]
    for line in (line for done in said for line in done.stdout.splitlines()):
        peer = json.loads(line)
        found = (*peer["found"], peer["unrelated"], peer["under"], peer["least"])
        rows.append([peer["name"], peer["rows"], round(peer["rows_cpu_s"]), ours / peer["rows_cpu_s"], *found])
    head = ["5 words at 0.7, 128 permutations", "rows", "rows/CPU-s", "distill is faster by"]
    table(
        [*head, "5 % edited", "10 %", "20 %", "identical", "unrelated removed", "under threshold", "least true"], rows
    )
    print()


def _intents(path: Path) -> None:
    """Short labelled rows of one domain: how many are removed, and how many of them for a row of another label."""
    from distill.filters.near.index import NearIndex

    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    out: list[list[object]] = []
    for name, options in (("default", {}), ("without the rule for short texts", {"short_threshold": 0.0})):
        matches = NearIndex(**options).judge([row["text"] for row in rows], [str(n) for n in range(len(rows))])
        gone = [(row, rows[int(match.id)]) for row, match in zip(rows, matches, strict=True) if match is not None]
        out.append([name, len(rows), len(gone), sum(row["category"] != kept["category"] for row, kept in gone)])
    table(["banking77", "rows", "removed", "of another intent than their survivor"], out)


if __name__ == "__main__":
    if sys.argv[1:2] == ["measure"]:
        _measure(sys.argv[2], json.loads(sys.argv[3]))
    elif sys.argv[1:2] == ["single"]:
        _single(sys.argv[2])
    else:
        main()
