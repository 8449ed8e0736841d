"""Semantic duplicates: speed of the embedding models, what each threshold removes, and the search for neighbours.

Truth: banking77 rows of different intents are unrelated; a GSM8K problem and its rephrasing say the same, different
problems do not; rows of the generated corpus (benchmarks/filters/corpus.py) are unrelated unless one is an edit of the
other. `unrelated lost` counts removed rows that are unrelated to the row they are said to repeat. A fixed 0.9 is what
tools of this kind take by default.

    python -m benchmarks filters-semantic --data /path/to/data      banking77/ and gsm8k/ in it
    SEMANTIC_ROWS=2000 …                                            rows of the generated corpus (5,000)
    SEMANTIC_PEERS=/path/to/python …                                an interpreter with semhash (see peers.py)

About five CPU minutes, most of them for the encoder.
"""

from __future__ import annotations

import csv
import json
import os
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from benchmarks.filters.corpus import UNRELATED, generate
from benchmarks.harness import data_folder, table
from distill.filters.semantic.embedding import DEFAULT_MODEL, Embedder, load_embedder
from distill.filters.semantic.neighbours import NeighbourIndex
from distill.filters.semantic.semantic import SemanticFilter
from distill.filters.semantic.static import static_folder
from distill.recipe import SemanticStep

_MODELS = ("all-MiniLM-L6-v2", "static")


@dataclass(frozen=True)
class Rows:
    """A set whose truth is known: rows of different `truth` are unrelated, rows in `copies` repeat an earlier one."""

    name: str
    texts: list[str]
    truth: list[str]
    copies: set[int]


def main() -> None:
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    data = data_folder("banking77", "gsm8k")
    sets = [_banking(data), _gsm8k(data), _generated(int(os.environ.get("SEMANTIC_ROWS", "5000")))]
    speed: list[list[object]] = []
    found: list[list[object]] = []
    with tempfile.TemporaryDirectory() as folder:
        for model in _MODELS:
            embedder = load_embedder(model, folder=Path(folder))
            embedder.embed(["warm up"])
            for rows in sets:
                started = time.process_time()
                embedder.embed(rows.texts)
                encoded = time.process_time() - started
                started = time.process_time()
                embedder.embed(rows.texts)
                cached = time.process_time() - started
                speed.append([model, rows.name, len(rows.texts), len(rows.texts) / encoded, len(rows.texts) / cached])
                steps = {
                    "auto": SemanticStep(kind="semantic", model=model),
                    "fixed 0.9": SemanticStep(kind="semantic", model=model, threshold=0.9),
                }
                if rows.name == "banking77":
                    steps["auto, apart: intent"] = SemanticStep(kind="semantic", model=model, apart="truth")
                found += [[model, rows.name, name, *_judge(rows, step, embedder)] for name, step in steps.items()]
    table(["model", "rows", "count", "rows/CPU-s", "from the cache"], speed)
    print()
    table(
        ["model", "rows", "threshold", "set to", "removed", "unrelated lost", "of all", "copies found", "warned"], found
    )
    print()
    if peers := os.environ.get("SEMANTIC_PEERS"):
        _semhash(peers, sets)
    _search()


def _judge(rows: Rows, step: SemanticStep, embedder: Embedder) -> list[object]:
    order = (
        np.random.default_rng(0).permutation(len(rows.texts)).tolist() if not rows.copies else range(len(rows.texts))
    )
    columns = {"id": [str(row) for row in order], "prompt": [rows.texts[row] for row in order]}
    made = pa.table({**columns, "truth": [rows.truth[row] for row in order]})
    filter_ = SemanticFilter(step.model_copy(update={"fields": ("prompt",)}), embedder=embedder)
    filter_.calibrate(made)
    verdicts = filter_.judge(made)
    removed = {int(columns["id"][place]): int(verdicts.matched_id[place]) for place in np.flatnonzero(~verdicts.keep)}
    lost = sum(rows.truth[row] != rows.truth[match] for row, match in removed.items())
    share = f"{len(rows.copies & set(removed)) / len(rows.copies):.3f}" if rows.copies else "–"
    used = filter_.calibrated.get("used", filter_.calibrated.get("threshold"))
    warned = "yes" if "warning" in filter_.calibrated else "no"
    return [used or "none", len(removed), lost, f"{lost / len(rows.texts):.2%}", share, warned]


def _semhash(python: str, sets: list[Rows]) -> None:
    """semhash at its default threshold, over the static model that ours has."""
    found: list[list[object]] = []
    with tempfile.TemporaryDirectory() as folder:
        texts = Path(folder) / "texts.json"
        for rows in sets:
            texts.write_text(json.dumps(rows.texts))
            command = [python, str(Path(__file__).with_name("peers.py")), "meaning", str(texts)]
            command.append(str(static_folder(DEFAULT_MODEL.casefold())))
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
            said = json.loads(done.stdout.splitlines()[-1])
            removed: dict[int, int] = dict(said["removed"])
            lost = sum(rows.truth[row] != rows.truth[match] for row, match in removed.items())
            share = f"{len(rows.copies & set(removed)) / len(rows.copies):.3f}" if rows.copies else "–"
            count = len(rows.texts)
            found.append([rows.name, count, count / said["cpu"], len(removed), lost, f"{lost / count:.2%}", share])
    table(["semhash", "count", "rows/CPU-s", "removed", "unrelated lost", "of all", "copies found"], found)
    print()


def _banking(data: Path) -> Rows:
    with (data / "banking77" / "train.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    return Rows("banking77", [row["text"] for row in rows], [row["category"] for row in rows], set())


def _gsm8k(data: Path) -> Rows:
    """Training problems, then test problems, then a rephrasing of each test problem."""
    read = [
        [json.loads(line) for line in (data / "gsm8k" / name).read_text().splitlines()]
        for name in ("train.jsonl", "test_a.jsonl", "test_a_rephrased.jsonl")
    ]
    train, test = ([row["question"] for row in part] for part in read[:2])
    again = [row["text"].removeprefix("Question:").split("\nAnswer:")[0].strip() for row in read[2]]
    truth = [f"train {n}" for n in range(len(train))] + 2 * [f"test {n}" for n in range(len(test))]
    first = len(train) + len(test)
    return Rows("gsm8k + rephrasings", train + test + again, truth, set(range(first, first + len(again))))


def _generated(count: int) -> Rows:
    texts, truth, copies = list[str](), list[str](), set[int]()
    for part in generate(count):
        for place, text in enumerate(part.texts):
            row, source = part.first + place, int(part.source[place])
            texts.append(text)
            edited = part.edited[place] != UNRELATED and source != row
            truth.append(truth[source] if edited else str(row))
            if edited:
                copies.add(row)
    return Rows("generated", texts, truth, copies)


def _search() -> None:
    """Vectors with a decaying spectrum in topics, as encoders make them; a fifth are near-copies of earlier ones."""
    rows: list[list[object]] = []
    for count in (10_000, 30_000, 60_000):
        vectors, copies = _vectors(count)
        for name, limit in (("exact", 1 << 40), ("lists", 8_192)):
            index = NeighbourIndex(vectors.shape[1], exact_rows=limit)
            started = time.process_time()
            match, _ = index.judge(vectors, 0.85)
            spent = time.process_time() - started
            rows.append(
                [count, name, spent / count * 1e6, f"{(match[copies] >= 0).mean():.4f}", int((match >= 0).sum())]
            )
    table(["vectors of 384", "search", "CPU µs/row", "copies found", "rows removed"], rows)


def _vectors(count: int, size: int = 384) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    scale = (np.arange(1, size + 1) ** -0.35).astype(np.float32)
    topics = random.normal(size=(200, size)).astype(np.float32) * scale
    vectors = topics[random.integers(0, 200, count)] + random.normal(size=(count, size)).astype(np.float32) * scale
    copies = np.sort(random.choice(count - 1, count // 5, replace=False) + 1)
    for row in copies.tolist():
        vectors[row] = vectors[random.integers(0, row)] + random.normal(size=size) * scale * 0.4
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors.astype(np.float32), copies
