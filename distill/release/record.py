"""What a release is: weights, and everything that says what they are and how good they are.

The description is gathered from what training, merging, exporting and evaluating left beside the weights. It holds
names and digests, never a path of this machine.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from distill.errors import InputError
from distill.evaluate.scorecard import GateResult
from distill.io import loads
from distill.train.student import weights_digest

__all__ = [
    "Kind",
    "Release",
    "Score",
    "file_digest",
    "gather_run",
    "gather_training",
    "read_score",
    "weights_of",
    "with_gates",
]

Kind = Literal["adapter", "model", "gguf"]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, protected_namespaces=())


class Score(_Part):
    """One evaluation of exactly these weights."""

    holdout: str
    holdout_digest: str
    items: int
    system: str
    metrics: dict[str, dict[str, float]]
    """Metric -> value, low, high (95 % interval)."""
    definitions: dict[str, str] = {}
    per_leaf: dict[str, dict[str, float]] = {}
    """Leaf -> number of items, and per metric their mean: what a later version is held against."""
    others: dict[str, dict[str, dict[str, float]]] = {}
    """What else was scored on the same items: system -> metric -> value, low, high."""
    latency: dict[str, Any] | None = None
    leaks: int | None = None
    """Holdout items that stand in the training rows; None: not looked for."""
    gates: list[dict[str, Any]] = []

    @property
    def passed(self) -> bool:
        """Every gate holds, and there is one at least."""
        return bool(self.gates) and all(gate["passed"] for gate in self.gates)


class Release(_Part):
    """One version. Written once, never changed."""

    name: str
    version: int
    created: str
    """UTC, ISO 8601."""
    kind: Kind
    weights: str
    """Folder or file inside the release."""
    weights_digest: str
    base: str
    """The model that was trained, as the catalogue or its folder calls it."""
    base_digest: str | None = None
    four_bit: bool = False
    dtype: str = "auto"
    template: str
    """Digest of the chat template."""
    quantisation: str | None = None
    training: dict[str, Any] | None = None
    """Method, data digest, rows, settings, seed, loss."""
    data: dict[str, Any] | None = None
    """The run that made the rows: recipe, teachers, fates, cost."""
    merge: dict[str, Any] | None = None
    proof: dict[str, Any] | None = None
    """What the GGUF file showed in llama.cpp."""
    score: Score | None = None
    unproven: str | None = None
    """Why this is not a proven release; None where its gates held. It stays here for good."""
    note: str = ""

    @property
    def title(self) -> str:
        return f"{self.name}@{self.version}"


def weights_of(path: Path) -> tuple[Kind, Path]:
    """What `path` holds: an adapter's folder (or a training's, with one in it), a model's folder, or a GGUF file.

    Raises:
        InputError: none of them.
    """
    if path.is_file() and path.suffix == ".gguf":
        return "gguf", path
    for folder in (path, path / "adapter", path / "model"):
        if (folder / "adapter_model.safetensors").is_file() and (folder / "adapter_config.json").is_file():
            return "adapter", folder
        if (folder / "config.json").is_file() and any(folder.glob("*.safetensors")):
            return "model", folder
    raise InputError("neither an adapter, nor a model in safetensors, nor a .gguf file", path=path)


def file_digest(path: Path) -> str:
    """Identifies weights: a folder's as training does, a file's by SHA-256."""
    if path.is_dir():
        return weights_digest(path)
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def read_score(scorecard: Path, found: str) -> Score:
    """The scorecard's system whose weights are `found` (a digest).

    Raises:
        InputError: not a scorecard, or one of other weights.
    """
    file = scorecard / "scorecard.json" if scorecard.is_dir() else scorecard
    try:
        card: dict[str, Any] = loads(file.read_bytes())
        systems: Mapping[str, Mapping[str, Any]] = card["systems"]
    except FileNotFoundError:
        raise InputError("there is no scorecard", path=file) from None
    except (ValueError, KeyError, TypeError):
        raise InputError("not a scorecard", path=file) from None
    ours = next((name for name, system in systems.items() if found in _digests(system["about"])), None)
    if ours is None:
        raise InputError(
            "is of other weights than these", path=file, hint="score these weights: `distill eval` with the same files"
        )
    return Score(
        holdout=card["holdout"],
        holdout_digest=card["holdout_digest"],
        items=card["n"],
        system=ours,
        metrics=systems[ours]["metrics"],
        definitions=card["definitions"],
        per_leaf=systems[ours].get("per_leaf", {}),
        others={name: system["metrics"] for name, system in systems.items() if name != ours},
        latency=systems[ours]["latency"],
        leaks=len(card["leaks"]) if card["leaks"] is not None else None,
        gates=card["gates"] if card["subject"] == ours else [],
    )


def _digests(about: Mapping[str, Any]) -> set[str]:
    """What identifies the weights that a system answered with: with an adapter, the adapter alone does not make it the
    base's score."""
    if about.get("adapter_digest"):
        return {str(about["adapter_digest"])}
    return {str(about[key]) for key in ("model_digest", "sha256") if about.get(key)}


def with_gates(score: Score, results: list[GateResult]) -> Score:
    """`score` with further gates that were checked on it."""
    further = [{"gate": g.gate, "value": g.value, "passed": g.passed} for g in results]
    return score.model_copy(update={"gates": [*score.gates, *further]})


def gather_training(place: Path, weights: str | None) -> dict[str, Any] | None:
    """What `train.json` in `place`, or one folder up, says; None where there is none.

    Args:
        weights: digest of the trained weights, where it is known: a training of others is not taken.
    """
    for folder in (place, place.parent):
        file = folder / "train.json"
        if file.is_file():
            facts: dict[str, Any] = loads(file.read_bytes())
            if weights is not None and facts.get("weights_digest") not in (None, weights):
                continue
            kept = ("adapter", "rows", "validation_rows", "row_tokens", "steps", "epochs", "loss_first", "loss_last",
                    "validation_loss", "seed", "dtype", "device", "data_digest", "train_seconds", "peak_memory_bytes",
                    "trainable_parameters", "config", "versions", "method")  # fmt: skip
            sources = [Path(str(source)).name for source in facts.get("sources", [])]
            return {**{key: facts[key] for key in kept if key in facts}, "sources": sources}
    return None


def gather_run(run: Path) -> dict[str, Any]:
    """The run that made the rows.

    Raises:
        InputError: not a run.
    """
    try:
        description: dict[str, Any] = loads((run / "run.json").read_bytes())
        metrics: dict[str, Any] = loads((run / "metrics.json").read_bytes())
        recipe: dict[str, Any] = description["recipe"]
    except (OSError, ValueError, KeyError):
        raise InputError("not a finished run: run.json and metrics.json are needed", path=run) from None
    summary: dict[str, Any] = description.get("summary") or {}
    teachers: dict[str, dict[str, Any]] = recipe.get("teachers") or {}
    used: set[str] = set(summary.get("teachers") or teachers)
    method: dict[str, Any] = recipe.get("method") or {}
    return {
        "run": run.resolve().name,
        "recipe": recipe.get("name"),
        "inputs": description["inputs"],
        "seed": recipe.get("seed"),
        "method": method.get("kind"),
        "teachers": {
            name: {"provider": str(teacher.get("provider")), "model": Path(str(teacher.get("model"))).name}
            for name, teacher in teachers.items()
            if name in used
        },
        "fates": {key: metrics.get(key) for key in ("planned", "kept", "rejected", "failed")},
        "cost_usd": summary.get("cost_usd"),
        "simulated": bool(summary.get("simulated")),
    }
