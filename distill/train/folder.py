"""The folder a training leaves, and whose it is.

OUT/adapter/              weights (safetensors) and PEFT's settings; OUT/model/ for a full fine-tune
    chat_template.jinja   the template the rows were rendered with: evaluation and serving use this one
OUT/train.json            settings, data digest, counts, one example with its mask, losses, seconds, memory
OUT/log.jsonl             one line an update
OUT/tensorboard/           the same as event files, where the settings ask for them
OUT/training.json, OUT/checkpoints/     while training; the same call goes on from there after an interruption
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, cast

import orjson

from distill.errors import InputError
from distill.io import digest, loads, write_bytes
from distill.io.disk import require_folder
from distill.recipe import TrainConfig

__all__ = ["TrainResult", "claim", "finish", "identity", "last_checkpoint", "remembered"]

A = TypeVar("A")
B = TypeVar("B")

_ALWAYS = frozenset(
    "adapter lora epochs max_steps learning_rate schedule warmup batch_size micro_batch_size weight_decay "  # noqa: SIM905
    "max_grad_norm max_length dtype gradient_checkpointing".split()
)
"""Settings of the first version; one that came later counts only where it is used, so that older trainings are still
recognised."""


@dataclass(frozen=True)
class TrainResult:
    """What a finished training left, as it stands in `train.json`."""

    out: Path
    facts: dict[str, Any]

    @property
    def adapter(self) -> Path | None:
        """The adapter's folder; None for a full fine-tune."""
        return self.out / "adapter" if self.facts["adapter"] != "full" else None

    @property
    def model(self) -> Path | None:
        """The trained model's folder, for a full fine-tune."""
        return self.out / "model" if self.facts["adapter"] == "full" else None

    def as_json(self) -> dict[str, Any]:
        """Paths and figures, without the example and the curve."""
        left_out = ("example", "losses", "validation_points", "config", "versions")
        shown = {key: value for key, value in self.facts.items() if key not in left_out}
        weights = self.adapter or self.model
        paths = {"out": str(self.out), "weights": str(weights), "train_json": str(self.out / "train.json")}
        return {**paths, "log": str(self.out / "log.jsonl"), **shown}


def identity(config: TrainConfig, **other: Any) -> str:
    """Two trainings of one identity leave the same weights. `other`: what they depend on beside the settings."""
    settings = config.model_dump(mode="json", exclude={"model", "seed", "tensorboard"})
    fields = type(config).model_fields
    plain = {name: field.get_default(call_default_factory=True) for name, field in fields.items()}
    used = {key: settings[key] for key in settings if key in _ALWAYS or getattr(config, key) != plain[key]}
    return digest({"config": used, **other})


def claim(out: Path, identity: str, *, overwrite: bool) -> dict[str, Any] | None:
    """The facts of the finished training in `out`, if it is this one; else `out` is ours to write.

    Raises:
        InputError: another training stands there, and `overwrite` is not set; or `out` is no folder.
    """
    require_folder(out)
    for name in ("train.json", "training.json"):
        file = out / name
        if not file.is_file():
            continue
        facts = loads(file.read_bytes())
        if facts.get("identity") == identity and not overwrite:
            return facts if name == "train.json" else None
        if name == "training.json" and not (out / "log.jsonl").is_file():
            continue  # it ended on its rows or its model, before the first update: nothing is lost
        if not overwrite:
            raise InputError(
                "holds another training (other data, settings, model or seed)",
                path=out,
                hint="name another folder, or pass --overwrite to discard it",
            )
    if overwrite:
        for name in ("adapter", "model", "checkpoints", "tensorboard"):
            shutil.rmtree(out / name, ignore_errors=True)
        for name in ("train.json", "training.json", "log.jsonl", "chat_template.jinja"):
            (out / name).unlink(missing_ok=True)
    write_bytes(out / "training.json", orjson.dumps({"identity": identity}))
    return None


def remembered(out: Path, choose: Callable[[], tuple[A, B]], *, key: str = "dtype") -> tuple[A, B]:
    """What was found on this machine (the number type) and why, once: a resumed training keeps it, whatever the machine
    would say today."""
    file = out / "training.json"
    state = loads(file.read_bytes())
    if key not in state:
        state[key] = choose()
        write_bytes(file, orjson.dumps(state))
    return cast("tuple[A, B]", tuple(state[key]))


def last_checkpoint(folder: Path) -> Path | None:
    """The newest complete checkpoint in `folder`."""
    found = [path for path in folder.glob("checkpoint-*") if (path / "trainer_state.json").is_file()]
    return max(found, key=lambda path: int(path.name.split("-")[-1]), default=None)


def finish(out: Path, facts: dict[str, Any]) -> TrainResult:
    """Write `train.json` and drop what only an unfinished training needs."""
    write_bytes(out / "train.json", orjson.dumps(facts, option=orjson.OPT_INDENT_2))
    shutil.rmtree(out / "checkpoints", ignore_errors=True)
    (out / "training.json").unlink(missing_ok=True)
    return TrainResult(out, facts)
