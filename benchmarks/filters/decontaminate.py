"""Decontamination on real sets: what is found of LLM rephrasings and of edits without any model, what it costs, and
what a sentence encoder adds where one is here.

`--data DIR` names the folder with `gsm8k`, `mmlu`, `humaneval` and `self_instruct` (see its MANIFEST.md). Clean rows
are halved by a fixed shuffle: one half sets the threshold (alone, or with rephrased items among it), rates of false
positives are counted on the other. Recall counts rephrased items that are dropped, for whatever item of the set; the
share that names the right one stands beside it.
"""

from __future__ import annotations

import csv
import json
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from benchmarks.harness import data_folder, table
from distill.errors import DistillError
from distill.filters.decontamination.decontaminate import DecontaminateFilter
from distill.filters.decontamination.evalsets import EvalItem
from distill.filters.decontamination.meaning import Embeds
from distill.filters.decontamination.plants import CLASSES, plant
from distill.filters.normalise import plain
from distill.filters.semantic.embedding import DEFAULT_MODEL, load_embedder
from distill.recipe import DecontaminateStep


@dataclass(frozen=True)
class Case:
    """An eval set, its rephrasings line by line, and rows that are clean of it."""

    name: str
    items: list[str]
    rephrased: list[str]
    clean: list[str]


def cases(folder: Path) -> list[Case]:
    def lines(path: str, field: str) -> list[str]:
        return [json.loads(line)[field] for line in (folder / path).read_text().splitlines() if line.strip()]

    train = lines("gsm8k/train.jsonl", "question")
    instructions = [
        *lines("self_instruct/seed_tasks.jsonl", "instruction"),
        *lines("self_instruct/user_oriented_instructions.jsonl", "instruction"),
    ]
    mixed = [*instructions, *train[:3000]]
    with (folder / "mmlu/sociology_test.csv").open(newline="") as file:
        questions = [row[0] for row in csv.reader(file)]
    code = lines("humaneval/HumanEval.jsonl", "text")
    return [
        Case("GSM8K", lines("gsm8k/test_a.jsonl", "question"), lines("gsm8k/test_a_rephrased.jsonl", "text"), train),
        Case("MMLU sociology", questions, lines("mmlu/sociology_test_rephrased.jsonl", "text"), mixed),
        Case("HumanEval, Python", code, lines("humaneval/humaneval_python.jsonl", "text"), mixed),
        Case("HumanEval, JavaScript", code, lines("humaneval/humaneval_js.jsonl", "text"), mixed),
    ]


def filter_of(
    case: Case, clean: Sequence[str] | None = None, encoder: Embeds | None = None, **keys: object
) -> DecontaminateFilter:
    items = [EvalItem("set", str(number), text) for number, text in enumerate(case.items)]
    step = DecontaminateStep.model_validate({"kind": "decontaminate", "fields": ["prompt"], **keys})
    return DecontaminateFilter(step, items=items, clean=None if clean is None else rows(clean), encoder=encoder)


def rows(texts: Sequence[str]) -> pa.Table:
    return pa.table({"prompt": list(texts)})


def dropped(filter_: DecontaminateFilter, texts: Sequence[str]) -> tuple[np.ndarray, list[str]]:
    keep: list[np.ndarray] = []
    matched: list[str] = []
    for first in range(0, len(texts), 1024):
        verdicts = filter_.judge(rows(texts[first : first + 1024]))
        keep.append(verdicts.keep)
        matched += verdicts.matched_id
    return ~np.concatenate(keep), matched


def halves(case: Case) -> tuple[list[str], list[str]]:
    shuffled = list(case.clean)
    random.Random(0).shuffle(shuffled)
    return shuffled[: len(shuffled) // 2], shuffled[len(shuffled) // 2 :]


def rates(every: list[Case]) -> None:
    results: list[list[object]] = []
    for case in every:
        known, held = halves(case)
        leaks = case.rephrased[: len(known) // 10]
        mixed = filter_of(case, false_positive_rate=0.01)
        mixed.calibrate(rows([*known, *leaks]))
        for how, filter_ in (
            ("not calibrated", filter_of(case)),
            ("1 %, by clean rows", filter_of(case, known, false_positive_rate=0.01)),
            (f"1 %, by rows with {len(leaks)} leaks", mixed),
        ):
            found, matched = dropped(filter_, case.rephrased)
            right = [name == f"set:{number}" for number, name in enumerate(matched)]
            lost = dropped(filter_, held)[0]
            limit = next(iter(filter_.report()["set"]["threshold"].values()))
            results.append(
                [case.name, how, f"{limit:.3f}", f"{found.mean():.3f}", f"{np.mean(right):.3f}", f"{lost.mean():.4f}"]
            )
    table(["eval set", "threshold by", "threshold", "rephrasings found", "right item", "clean rows lost"], results)


def kinds(case: Case) -> None:
    known, held = halves(case)
    filter_ = filter_of(case, known, false_positive_rate=0.01)
    words = sorted({word for text in held[:500] for word in text.split() if word.isalpha()})
    results: list[list[object]] = []
    for kind in CLASSES:
        texts = [plant(kind, text, held[number], words, str(number)) for number, text in enumerate(case.items)]
        made = [text for text in texts if text is not None]
        found = dropped(filter_, made)[0]
        results.append([kind, len(made), f"{found.mean():.4f}"])
    for size in (8, 13):
        results.append([f"(any shared {size}-gram: rephrasings)", len(case.rephrased), f"{shared(case, size):.4f}"])
    print(f"\n{case.name}, 1 % by clean rows:\n")
    table(["copies", "planted", "found"], results)


def shared(case: Case, size: int) -> float:
    """The usual rule: a row that shares any run of `size` words with its item."""

    def runs(text: str) -> set[tuple[str, ...]]:
        words = plain(text).split()
        return {tuple(words[place : place + size]) for place in range(len(words) - size + 1)}

    pairs = zip(case.items, case.rephrased, strict=True)
    return float(np.mean([bool(runs(item) & runs(text)) for item, text in pairs]))


def leaks(case: Case) -> None:
    known, held = halves(case)
    results: list[list[object]] = []
    for size in (400, len(known)):
        for share in (0.0, 0.02, 0.1, 0.3):
            source = random.Random(size)
            count = round(share / (1 - share) * size)
            among = [*source.sample(known, size), *(source.choice(case.rephrased) for _ in range(count))]
            filter_ = filter_of(case, false_positive_rate=0.01)
            filter_.calibrate(rows(among))
            lost, found = dropped(filter_, held)[0].mean(), dropped(filter_, case.rephrased)[0].mean()
            estimated = filter_.calibrated["sets"][0]["leaks_estimated"]
            results.append([size, count, estimated, f"{lost:.4f}", f"{found:.3f}"])
    print(f"\n{case.name}, 1 % by rows as they come, repeated leaks among them:\n")
    table(["clean rows", "leaks", "leaks estimated", "held-out clean rows lost", "rephrasings found"], results)


def speed(case: Case) -> None:
    results: list[list[object]] = []
    for times in (1, 2, 8):
        # Items of a larger set: the same number of words a row, none of them a copy.
        items = [f"{text} {number}" for number in range(times) for text in case.items]
        begun = time.process_time()
        filter_ = filter_of(Case(case.name, items, [], []))
        built = time.process_time() - begun
        begun = time.process_time()
        dropped(filter_, case.clean)
        results.append([len(items), f"{built:.2f}", f"{len(case.clean) / (time.process_time() - begun):,.0f}"])
    print(f"\n{case.name} train, {len(case.clean):,} rows, one thread:\n")
    table(["items", "CPU s to build", "rows/CPU-s"], results)


def encoded(every: list[Case], clean: int = 2000) -> None:
    try:
        encoder = load_embedder(DEFAULT_MODEL, cache=False)
    except DistillError as error:
        print(f"\nWithout {DEFAULT_MODEL}: {error}")
        return
    seen: dict[str, np.ndarray] = {}

    class Once:
        """Embeds a text once."""

        def embed(self, texts: Sequence[str]) -> np.ndarray:
            fresh = [text for text in dict.fromkeys(texts) if text not in seen]
            seen.update(zip(fresh, encoder.embed(fresh), strict=True))
            return np.stack([seen[text] for text in texts]) if texts else np.zeros((0, encoder.size), np.float32)

    results: list[list[object]] = []
    begun = time.process_time()
    for case in every:
        some = random.Random(0).sample(case.clean, min(clean, len(case.clean)))
        known, held = some[: len(some) // 2], some[len(some) // 2 :]
        for how, by in (("words", None), ("words and encoder", Once())):
            filter_ = filter_of(case, known, by, false_positive_rate=0.01)
            lost, found = dropped(filter_, held)[0].mean(), dropped(filter_, case.rephrased)[0].mean()
            results.append([case.name, how, len(known), f"{found:.3f}", f"{lost:.4f}"])
    speed_ = len(seen) / (time.process_time() - begun)
    print(f"\nWith {DEFAULT_MODEL} ({speed_:.0f} texts/CPU-s in all), 1 % by clean rows:\n")
    table(["eval set", "by", "clean rows", "rephrasings found", "clean rows lost"], results)


def main() -> None:
    every = cases(data_folder("gsm8k", "mmlu", "humaneval", "self_instruct"))
    rates(every)
    kinds(every[0])
    leaks(every[0])
    speed(every[0])
    encoded(every[:2])
