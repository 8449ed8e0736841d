"""The model card of a release: what it is, what it was made of, what it scored, where it ends, how to make it again.

Filled from the release's own record; whatever a user or a model wrote is escaped, and no path of this machine is in it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml

from distill.dataset.card import escape
from distill.dataset.terms import CHECKED, terms_of
from distill.release.record import Release, Score

__all__ = ["render_card"]


def render_card(release: Release, *, licence: str | None = None) -> str:
    """The README of a release, in Markdown.

    Args:
        licence: of the base, where the catalogue knows it.
    """
    front: dict[str, Any] = {
        "base_model": release.base,
        "tags": ["distill", release.kind],
        **({"license": licence.lower()} if licence else {}),
        **({"library_name": "peft"} if release.kind == "adapter" else {}),
    }
    sections = [
        f"---\n{yaml.safe_dump(front, sort_keys=False, allow_unicode=True)}---",
        f"# {escape(release.name)}, version {release.version}",
        _warning(release),
        escape(release.note, limit=2000),
        _what(release, licence),
        _scores(release.score),
        _engine(release),
        _data(release.data),
        _training(release.training),
        _limits(release),
        _again(release),
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def _warning(release: Release) -> str:
    if release.unproven is None:
        return ""
    return f"> **UNPROVEN.** {escape(release.unproven, limit=500)}"


def _what(release: Release, licence: str | None) -> str:
    kinds = {"adapter": "a LoRA adapter", "model": "a whole model (safetensors)", "gguf": "a GGUF file for llama.cpp"}
    lines = ["## What it is", "", f"- {kinds[release.kind]}, in `{release.weights}`"]
    lines += [f"- base: {escape(release.base)}{f' ({escape(licence)})' if licence else ''}"]
    if release.base_digest:
        lines += [f"- digest of the base's weights: `{release.base_digest}`"]
    if release.quantisation:
        lines += [f"- quantisation: {escape(release.quantisation)}"]
    if release.kind == "adapter":
        held = "in 4-bit NF4" if release.four_bit else f"in {release.dtype}"
        lines += [f"- the base was held {held} in training and in evaluation: serve it so"]
    if release.merge:
        lines += [f"- merged: {escape(str(release.merge.get('chosen')))}; {escape(str(release.merge.get('reason')))}"]
    lines += [f"- digest of the weights: `{release.weights_digest}`; of the chat template: `{release.template}`"]
    return "\n".join(lines)


def _scores(score: Score | None) -> str:
    if score is None:
        return "## Scores\n\nNone: nobody has measured these weights on a holdout."
    names = list(score.metrics)
    lines = [
        "## Scores",
        "",
        f"{score.items:,} items of {escape(score.holdout)} (digest `{score.holdout_digest}`); in brackets the 95 % "
        "bootstrap interval.",
        "",
        f"| system | {' | '.join(escape(name) for name in names)} |",
        f"|---|{'---|' * len(names)}",
        f"| **this release** | {' | '.join(_figure(score.metrics[name]) for name in names)} |",
    ]
    for system, metrics in score.others.items():
        cells = (_figure(metrics[name]) if name in metrics else "" for name in names)
        lines.append(f"| {escape(system)} | {' | '.join(cells)} |")
    lines += ["", *(f"- {escape(name)}: {escape(text)}" for name, text in score.definitions.items())]
    if score.latency:
        p50, p95 = (1000 * float(score.latency[key]) for key in ("p50", "p95"))
        lines += [f"- latency: p50 {p50:,.0f} ms, p95 {p95:,.0f} ms, on the machine that measured it"]
    if score.gates:
        lines += ["", "| gate | value | |", "|---|---:|---|"]
        for gate in score.gates:
            held = "holds" if gate["passed"] else "**fails**"
            value = "unknown" if gate["value"] is None else f"{gate['value']:.4f}"
            lines.append(f"| {escape(gate['gate'])} | {value} | {held} |")
    return "\n".join(lines)


def _engine(release: Release) -> str:
    proof = release.proof
    if not proof:
        return ""
    lines = ["## In llama.cpp", "", "| figure | value |", "|---|---:|"]
    lines += [
        f"| {name} | {proof[name]:.4f} |"
        for name in ("tokenisation", "template", "greedy", "drop", "sure_drop")
        if isinstance(proof.get(name), (int, float))
    ]
    lines += ["", "Shares of texts that become the same ids, of prompts that are built as in training, and of "
              "questions with the same greedy answer as the model it was made from."]  # fmt: skip
    return "\n".join(lines)


def _data(data: Mapping[str, Any] | None) -> str:
    if not data:
        return ""
    lines = ["## Data", ""]
    if data.get("simulated"):
        lines += ["> **SIMULATED DATA. No language model wrote these rows**: the model is fit for nothing.", ""]
    lines += [f"Made by the run {escape(str(data['run']))} of the recipe {escape(str(data['recipe']))}."]
    fates: Mapping[str, Any] = data["fates"]
    lines += ["", "| fate | reason | rows |", "|---|---|---:|", f"| kept | | {_count(fates.get('kept'))} |"]
    rejected: Mapping[str, Mapping[str, int]] = fates.get("rejected") or {}
    failed: Mapping[str, int] = fates.get("failed") or {}
    for name, reasons in sorted(rejected.items()):
        lines += [f"| rejected by {escape(name)} | {escape(r)} | {_count(n)} |" for r, n in sorted(reasons.items())]
    lines += [f"| failed | {escape(r)} | {_count(n)} |" for r, n in sorted(failed.items())]
    lines += [f"| **planned** | | **{_count(fates.get('planned'))}** |"]
    if data.get("cost_usd") is not None:
        lines += ["", f"Cost: {float(data['cost_usd']):.4f} USD."]
    teachers: Mapping[str, Mapping[str, str]] = data.get("teachers") or {}
    lines += ["", "### Teachers, and the terms of use of their outputs", ""]
    lines += [f"As known on {CHECKED}, in short. **Check this yourself**: only the text of the terms counts.", ""]
    lines += ["| model | provider | terms |", "|---|---|---|"]
    for teacher in teachers.values():
        provider, model = teacher["provider"], teacher["model"]
        terms = terms_of(provider, model)
        says = f"{terms.name}: {terms.says}" if terms else "Not in the table: read the terms of its provider."
        if provider == "simulated":
            says = "None: no model was asked."
        lines.append(f"| {escape(model)} | {escape(provider)} | {escape(says, limit=600)} |")
    return "\n".join(lines)


def _training(training: Mapping[str, Any] | None) -> str:
    if not training:
        return ""
    config: Mapping[str, Any] = training.get("config") or {}
    lines = ["## Training", ""]
    shown = {
        "rows": training.get("rows"),
        "digest of the rows": training.get("data_digest"),
        "adapter": training.get("adapter"),
        "steps": training.get("steps"),
        "epochs": training.get("epochs"),
        "learning rate": config.get("learning_rate"),
        "rows per update": config.get("batch_size"),
        "seed": training.get("seed"),
        "number type": training.get("dtype"),
        "loss, first and last": f"{training.get('loss_first')}, {training.get('loss_last')}",
        "machine": training.get("device"),
        "seconds": training.get("train_seconds"),
    }
    lines += [f"- {name}: {escape(str(value))}" for name, value in shown.items() if value is not None]
    return "\n".join(lines)


def _limits(release: Release) -> str:
    lines = [
        "## Limits",
        "",
        "- The model was trained for one task. Outside of what the holdout asks, nothing was measured.",
        "- The scores hold for greedy decoding with the chat template in this folder, and for no other prompt.",
    ]
    if release.data:
        lines += ["- The rows are synthetic: they carry the errors, gaps and biases of the models that wrote them."]
    score = release.score
    if score is not None and score.leaks is None:
        lines += ["- Whether holdout items stand in the training rows was not looked at in this evaluation."]
    elif score is not None and score.leaks:
        lines += [f"- **{score.leaks} holdout items stand in the training rows**: the scores are too good."]
    if score is not None and score.items < 100:
        lines += [f"- {score.items} items are few: read the intervals, not the values."]
    return "\n".join(lines)


def _again(release: Release) -> str:
    training = release.training
    if not training:
        return ""
    config: Mapping[str, Any] = training.get("config") or {}
    made_with: Mapping[str, str] = training.get("versions") or {}
    versions = ", ".join(f"{name} {version}" for name, version in made_with.items())
    lines = ["## How to make it again", ""]
    if release.data:
        lines += [f"The rows: `distill generate {escape(str(release.data['recipe']))}` with the same inputs "
                  f"(digest `{release.data['inputs']}`) and answer store. Then:", ""]  # fmt: skip
    settings = yaml.safe_dump({key: value for key, value in config.items() if key != "model"}, sort_keys=False)
    lines += ["```yaml", "# settings.yaml", settings.rstrip().replace("```", "'''"), "```", ""]
    lines += ["```sh", f"distill train --data train.jsonl --model {release.base} --recipe settings.yaml "
              f"--seed {training.get('seed')} --out OUT", "```"]  # fmt: skip
    if versions:
        lines += ["", f"Made with {escape(versions, limit=400)}."]
    return "\n".join(lines)


def _figure(value: Mapping[str, float]) -> str:
    return f"{value['value']:.3f} [{value['low']:.3f}, {value['high']:.3f}]"


def _count(value: Any) -> str:
    return f"{int(value):,}" if value is not None else ""
