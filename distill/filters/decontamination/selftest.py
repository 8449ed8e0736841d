"""What a decontaminating filter really catches on the user's own rows: recall by kind of edit, and false positives.

A sample of the rows is halved. One half sets the thresholds, as the rows do when the file is filtered; copies of eval
items, edited in known ways, are judged as rows, and the other half shows the rate of false positives. Leaks may stand
among it: rows that an earlier stage than the last finds are told apart, and the others count by how sure it is that
they are clean.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from distill.filters.decontamination.decontaminate import DecontaminateFilter
from distill.filters.decontamination.evalsets import EvalItem
from distill.filters.decontamination.plants import CLASSES, plant
from distill.filters.decontamination.words import tokens
from distill.filters.text import parts
from distill.recipe import DecontaminateStep

__all__ = ["self_test"]

_ITEMS = 200
"""Items of a set that are planted."""

_ROWS = 4000


def self_test(filter_: DecontaminateFilter, step: DecontaminateStep, rows: pa.Table) -> dict[str, Any]:
    """Recall by eval set and kind of edit, and the rate of clean rows dropped.

    Args:
        filter_: fresh, made for `step`; its books are of no use afterwards.
        rows: a sample of the user's rows, in an order that says nothing.
    """
    if filter_.needs_sample:
        filter_.calibrate(rows.take(np.arange(0, rows.num_rows, 2)))
    held = rows.take(np.arange(1, rows.num_rows, 2)[:_ROWS])
    fields = parts(held, step.fields)
    field, hosts = fields[0]
    hosts = [host for host in hosts if host] or [""]
    words = sorted({word for host in hosts[:500] for word in tokens(host) if word.isalpha()}) or ["word"]
    sets: dict[str, Any] = {}
    for report in filter_.reports:
        count = min(len(report.items), _ITEMS)
        items = [report.items[number * len(report.items) // count] for number in range(count)]
        sets[report.name] = {
            kind: found for kind in CLASSES if (found := _recall(filter_, step, field, kind, items, hosts, words))
        }
    return {
        "field": field,
        "calibrated": filter_.calibrated,
        "recall": sets,
        "false_positives": filter_.clean_loss(held),
    }


def _recall(
    filter_: DecontaminateFilter,
    step: DecontaminateStep,
    field: str,
    kind: str,
    items: list[EvalItem],
    hosts: list[str],
    words: list[str],
) -> dict[str, Any] | None:
    texts: list[str] = []
    for number, item in enumerate(items):
        text = plant(kind, item.text, hosts[number % len(hosts)], words, item.name)
        if text is not None:
            texts.append(text)
    if not texts:
        return None
    columns = {name: [""] * len(texts) for name in step.fields} | {field: texts}
    verdicts = filter_.judge(pa.table(columns))
    dropped = ~verdicts.keep
    reasons, counts = np.unique([verdicts.reason[row] for row in np.flatnonzero(dropped)], return_counts=True)
    return {
        "planted": len(texts),
        "found": int(dropped.sum()),
        "recall": round(float(dropped.mean()), 4),
        "reasons": dict(zip(reasons.tolist(), counts.tolist(), strict=True)),
    }
