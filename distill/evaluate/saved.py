"""Predictions that are kept: a system that did not change, asked the same questions, does not answer again.

Each line of `predictions.jsonl` carries the key of its system: the digest of what answers (weights, template, number
type, decoding) and of all questions. So a new metric, a corrected label or another gate costs seconds, and a changed
system answers anew while the others are taken as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from distill.errors import FailureClass, InputError
from distill.evaluate.generation import Generated, Prediction
from distill.evaluate.holdout import Holdout, Item
from distill.evaluate.scorecard import Latency
from distill.io import digest, read_jsonl

__all__ = ["FAILURES", "Answered", "Saved", "System", "answered", "line"]

FAILURES = frozenset(failure.value for failure in FailureClass) - {"length"}
"""How a prediction ended that holds no answer."""


class System(Protocol):
    """Something that answers: a `Student`, a `TeacherSystem`, a file in llama.cpp."""

    @property
    def name(self) -> str: ...

    def about(self) -> dict[str, Any]:
        """What is scored, as JSON values: equal means the same predictions."""
        ...

    async def answer(self, items: Sequence[Item], progress: Callable[[int], None]) -> Generated: ...


@dataclass(frozen=True)
class Answered:
    """A system's predictions, and whether they were taken from an earlier evaluation."""

    about: dict[str, Any]
    key: str
    generated: Generated
    reused: bool

    @property
    def texts(self) -> list[str]:
        return [prediction.text for prediction in self.generated.predictions]


class Saved:
    """Predictions of an earlier evaluation."""

    def __init__(self, file: Path) -> None:
        self._rows: dict[str, list[dict[str, Any]]] = {}
        try:
            for _, row in read_jsonl(file) if file.is_file() else ():
                self._rows.setdefault(str(row.get("system")), []).append(row)
        except InputError:
            self._rows = {}  # damaged: everything is answered again

    def get(self, system: str, key: str, items: Sequence[Item]) -> Generated | None:
        """The predictions of `system`, if all of them are here and none of them is a failed request."""
        rows = {row["id"]: row for row in self._rows.get(system, ()) if row.get("key") == key}
        if any(item.id not in rows or rows[item.id]["messages"] != list(item.messages) for item in items):
            return None  # ids may have moved to other questions
        ordered = [rows[item.id] for item in items]
        if any(row["finish"] in FAILURES for row in ordered):
            return None  # a failed request is worth another try
        predictions = [
            Prediction(
                row["prediction"],
                row["tokens"],
                row["finish"],
                row.get("prompt_tokens", 0),
                row.get("usd"),
                row.get("reasoning", ""),
            )
            for row in ordered
        ]
        run: Mapping[str, Any] = ordered[0]["run"]
        latency = Latency(**run["latency"]) if run["latency"] else None
        return Generated(predictions, run["seconds"], latency, run.get("timed", True))

    def others(self, done: Mapping[str, Any]) -> list[dict[str, Any]]:
        """The lines of systems that are not in `done`."""
        return [row for system, rows in self._rows.items() if system not in done for row in rows]


async def answered(
    system: System, holdout: Holdout, saved: Saved, progress: Callable[[str, int, int], None]
) -> Answered:
    """What `system` answers to the holdout: as saved, else asked now."""
    about = system.about()
    key = digest([about, holdout.prompts_digest])
    found = saved.get(system.name, key, holdout.items)
    if found is not None:
        return Answered(about, key, found, reused=True)
    total = len(holdout.items)
    progress(system.name, 0, total)
    found = await system.answer(holdout.items, partial(_tell, progress, system.name, total))
    return Answered(about, key, found, reused=False)


def line(system: str, of: Answered, item: Item, prediction: Prediction, metrics: Mapping[str, float]) -> dict[str, Any]:
    """One line of `predictions.jsonl`."""
    latency = of.generated.latency
    how = {"p50": latency.p50, "p95": latency.p95, "n": latency.n, "how": latency.how} if latency else None
    return {
        "id": item.id,
        "system": system,
        "leaf": item.leaf,
        "kind": item.kind,
        "messages": list(item.messages),
        "answer": item.answer,
        "prediction": prediction.text,
        **({"reasoning": prediction.reasoning} if prediction.reasoning else {}),
        "finish": prediction.finish,
        "tokens": prediction.tokens,
        "prompt_tokens": prediction.prompt_tokens,
        "usd": prediction.usd,
        "metrics": dict(metrics),
        "key": of.key,
        "run": {"seconds": of.generated.seconds, "latency": how, "timed": of.generated.timed},
    }


def _tell(progress: Callable[[str, int, int], None], system: str, total: int, done: int) -> None:
    progress(system, done, total)
