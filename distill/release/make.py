"""A release is made: weights are copied, their record is gathered, their scorecard is read, their card is written."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from distill.errors import InputError
from distill.evaluate.scorecard import GateResult
from distill.io import digest, loads, write_text
from distill.release.card import render_card
from distill.release.files import write_serve_files
from distill.release.gates import check_values
from distill.release.record import (
    Kind,
    Release,
    Score,
    file_digest,
    gather_run,
    gather_training,
    read_score,
    weights_of,
    with_gates,
)
from distill.release.registry import Listed, Registry
from distill.train import TrainData, student
from distill.train.template import use_template

__all__ = ["add_release"]

_LEFT_OUT = ("eval", "checkpoints", ".*", "*.tmp", "train.json", "log.jsonl")


def add_release(
    registry: Registry,
    name: str,
    weights: Path,
    *,
    base: str | None = None,
    scorecard: Path | None = None,
    gates: Sequence[str] = (),
    run: Path | None = None,
    training: Path | None = None,
    note: str = "",
    force: bool = False,
) -> Listed:
    """Add the next version of `name`.

    Args:
        weights: an adapter's folder, a model's, a training's output, or a GGUF file.
        base: the model the tokenizer is taken from; left out: what the weights name. Needed for a GGUF file.
        scorecard: of an evaluation of these weights; left out: what a merge or an export measured.
        gates: further conditions on the scorecard's figures.
        run: the run that made the rows.
        training: the training's output, where the weights do not lie in it.
        force: add it without a passing scorecard; the release says so for good.

    Raises:
        InputError: no such weights, the scorecard is of others, or it does not pass and `force` is not given.
    """
    kind, source = weights_of(weights)
    found = file_digest(source)
    notes = _notes(source) if source.is_dir() else {}
    proof = _beside(source.with_name(f"{source.name}.json")) if kind == "gguf" else None
    merged = _beside(source / "merge.json") if kind == "model" else None
    origin = base or notes.get("base") or (source.name if kind == "model" else None)
    if origin is None:
        raise InputError("does not say what it was made from", path=source, hint="name the model with --base")
    score = read_score(scorecard, found) if scorecard is not None else _own_score(kind, source, found)
    if gates:
        if score is None:
            raise InputError("there is no scorecard to check them on", field="--gate")
        figures = {metric: figure["value"] for metric, figure in score.metrics.items()}
        score = with_gates(score, check_values(gates, figures))
    reason = _unproven(score, merged, proof)
    if reason is not None and not force:
        raise InputError(f"this is no proven release: {reason}", hint="--force adds it; it is marked for good")
    tokenizer, template, place = _speech(kind, source, origin)
    data = gather_run(run) if run is not None else None
    train = _training(kind, source, training, merged["adapter_digest"] if merged is not None else found)
    if run is not None and train is not None:
        _same_rows(run, train)

    def fill(version: int, created: str, folder: Path) -> Release:
        held = source.name if kind == "gguf" else kind
        if kind == "gguf":
            shutil.copy2(source, folder / held)
        else:
            shutil.copytree(source, folder / held, ignore=shutil.ignore_patterns(*_LEFT_OUT))
        if file_digest(folder / held) != found:
            raise InputError("the weights changed while they were copied", path=source)
        release = Release(
            name=name,
            version=version,
            created=created,
            kind=kind,
            weights=held,
            weights_digest=found,
            base=_first_base(place) if place is not None else Path(origin).name,
            base_digest=student.weights_digest(place.folder) if place is not None and kind == "adapter" else None,
            four_bit=bool(notes.get("four_bit")),
            dtype=str(notes.get("dtype", "auto")),
            template=digest(template.encode()),
            quantisation=proof.get("quant") if proof else None,
            training=train,
            data=data,
            merge=merged,
            proof=proof,
            score=score,
            unproven=reason,
            note=note,
        )
        write_text(folder / "chat_template.jinja", template)
        if kind == "gguf":
            tokenizer.save_pretrained(folder / "tokenizer")  # prompts are made with it when the release is served
            student.forget_paths(folder / "tokenizer")
        write_serve_files(release, folder, tokenizer)
        write_text(folder / "README.md", render_card(release, licence=_licence(release.base)))
        return release

    return registry.add(name, fill)


def _unproven(score: Score | None, merged: dict[str, Any] | None, proof: dict[str, Any] | None) -> str | None:
    """Why these weights are not proven; None where they are."""
    if score is None:
        return "there is no scorecard of these weights"
    if not score.gates:
        return "its scorecard has no gates"
    if failed := [gate["gate"] for gate in score.gates if not gate["passed"]]:
        return f"a gate of its scorecard fails: {', '.join(failed)}"
    for what, facts in (("merge", merged), ("export", proof)):
        if facts is not None and facts.get("passed") is not True:
            return f"a gate of its {what} fails, or was not checked"
    return None


def _own_score(kind: Kind, source: Path, found: str) -> Score | None:
    """What the merge or the export measured of these weights, with their gates."""
    if kind == "adapter":
        return None
    places = [source / "eval"] if kind == "model" else [source.with_name(f"{source.name}.eval"), source.parent / "eval"]
    facts = _beside(source / "merge.json" if kind == "model" else source.with_name(f"{source.name}.json"))
    for place in places:
        if (place / "scorecard.json").is_file():
            try:
                score = read_score(place, found)
            except InputError:
                continue  # of other weights
            results = [GateResult(g["gate"], g["value"], g["passed"]) for g in (facts or {}).get("gates", [])]
            return with_gates(score, results)
    return None


def _speech(kind: Kind, source: Path, origin: str) -> tuple[Any, str, student.Place | None]:
    """Tokenizer, chat template, and the base where it is here."""
    student.offline()
    try:
        place = student.locate(origin)
    except InputError:
        if kind != "model":
            raise
        place = None  # a merged model carries its tokenizer; its base may be gone
    folder = source if kind == "model" or place is None else place.folder
    tokenizer = student.load_tokenizer(folder)
    template = use_template(tokenizer, source if source.is_dir() else folder)
    return tokenizer, template, place


def _first_base(place: student.Place) -> str:
    """What a merged model was made from, where `place` is one."""
    return str(_notes(place.folder).get("base") or place.name)


def _training(kind: Kind, source: Path, given: Path | None, trained: str) -> dict[str, Any] | None:
    """What is known of the training; `trained` is the digest of what came out of it, but for a GGUF file."""
    if given is None:
        return gather_training(source, trained) if source.is_dir() else None
    facts = gather_training(given, None if kind == "gguf" else trained)
    if facts is None:
        raise InputError("holds no training of these weights", path=given, field="--training")
    return facts


def _same_rows(run: Path, training: dict[str, Any]) -> None:
    """A card must not name a run whose rows the student never saw."""
    rows = TrainData.read(run / "dataset")
    if training.get("data_digest") not in (None, rows.digest):
        raise InputError("its dataset is not what the student was trained on", path=run, field="--run")


def _beside(file: Path) -> dict[str, Any] | None:
    return loads(file.read_bytes()) if file.is_file() else None


def _notes(folder: Path) -> dict[str, Any]:
    return _beside(folder / "distill.json") or {}


def _licence(base: str) -> str | None:
    from distill.models import catalogue

    entry = catalogue().get(base)
    return entry.licence if entry is not None else None
