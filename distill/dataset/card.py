"""The dataset card: what the rows are, how they were made, what they cost, what they must not be used for.

The card is Markdown with the front matter that `datasets.load_dataset` reads. Everything that a model or a user
wrote is escaped: a topic called `](x)<script>` shows as that text.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

import yaml

from distill.dataset.terms import CHECKED, terms_of

__all__ = ["CardFacts", "TeacherFacts", "escape", "render_card"]

_SPECIAL = re.compile(r"([\\`*_{}\[\]()#+\-.!|<>~&$])")
_MAX = 200


@dataclass(frozen=True, slots=True)
class TeacherFacts:
    """A teacher as the card names it."""

    name: str
    provider: str
    model: str
    requests: int | None = None
    cost_usd: Decimal | float | None = None


@dataclass(frozen=True, slots=True)
class CardFacts:
    """What a card needs beside the rows themselves. Counts are rows, costs USD."""

    name: str
    description: str = ""
    recipe_digest: str = ""
    method: str = ""
    seed: int | None = None
    planned: int | None = None
    rejected: Mapping[str, Mapping[str, int]] = field(default_factory=dict[str, Mapping[str, int]])
    """By filter and reason."""
    failed: Mapping[str, int] = field(default_factory=dict[str, int])
    """By failure class."""
    cost_usd: Decimal | float | None = None
    unknown_cost: bool = False
    """Some answers have no known price: the cost is a lower bound."""
    teachers: Sequence[TeacherFacts] = ()
    versions: Mapping[str, str] = field(default_factory=dict[str, str])
    eval_sets: Sequence[str] = ()
    """Names of the sets that rows were compared with."""
    not_chosen: int = 0
    """Kept rows that a choice at the end left out of the splits."""
    mixed: Mapping[str, int] = field(default_factory=dict[str, int])
    """Rows of other sets in the training split, by file."""
    simulated: bool = False
    """Rows were made up by the rehearsal provider."""


def render_card(
    facts: CardFacts,
    *,
    format: str,
    license: str,
    rows: Mapping[str, int],
    leaves: Mapping[str, int],
    groups: int,
    digest: str = "",
) -> str:
    """The README of a dataset folder.

    Args:
        rows: rows by split.
        leaves: rows by leaf.
        groups: groups of related rows.
        digest: of the rows as they are written.
    """
    sections = [
        _front(facts, license, rows, digest),
        f"# {escape(facts.name)}",
        _warning(facts),
        escape(facts.description, limit=2000),
        _load(rows, format),
        _counts(facts, rows, groups),
        _topics(leaves),
        _making(facts),
        _teachers(facts),
        _limits(facts),
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def escape(text: str, *, limit: int = _MAX) -> str:
    """`text` as Markdown that shows exactly it, on one line."""
    line = " ".join(str(text).split())
    return _SPECIAL.sub(r"\\\1", line if len(line) <= limit else line[: limit - 1] + "…").replace("\\<", "&lt;")


def _front(facts: CardFacts, license: str, rows: Mapping[str, int], digest: str) -> str:
    files = [{"split": split, "path": f"{split}.jsonl"} for split in rows]
    # `load_dataset` caches a local folder by its name and these lines alone: without the digest it would give the rows
    # of whichever run it was shown first.
    config = {"config_name": "default", "description": f"rows {digest}", "data_files": files}
    front: dict[str, Any] = {
        "license": license,
        "tags": ["synthetic", "distill", *(["simulated"] if facts.simulated else [])],
        "configs": [config],
    }
    return f"---\n{yaml.safe_dump(front, sort_keys=False, allow_unicode=True)}---"


def _warning(facts: CardFacts) -> str:
    if not facts.simulated:
        return ""
    return (
        "> **SIMULATED DATA. No language model wrote these rows.** A rehearsal provider made them up to try out a run. "
        "They are not fit to train or to measure anything."
    )


def _load(rows: Mapping[str, int], format: str) -> str:
    return (
        f"{sum(rows.values()):,} rows in the `{format}` layout.\n\n"
        '```python\nfrom datasets import load_dataset\n\ndataset = load_dataset("PATH_OF_THIS_FOLDER")\n```'
    )


def _counts(facts: CardFacts, rows: Mapping[str, int], groups: int) -> str:
    lines = ["## Rows", "", "| split | rows |", "|---|---:|"]
    lines += [f"| {escape(split)} | {count:,} |" for split, count in rows.items()]
    lines += ["", f"Rows of one slot or of the same seed examples form a group ({groups:,} groups); "
              "a group is never divided between splits."]  # fmt: skip
    lines += [
        f"- {count:,} rows of the training split come from {escape(name)}, a set that was mixed in"
        + (" after the same comparison with eval sets." if facts.eval_sets else ".")
        for name, count in facts.mixed.items()
    ]
    if "validation" not in rows:
        lines += ["", "There is no validation split: none was asked for, or the rows form too few groups."]
    mixed = sum(facts.mixed.values())
    kept, rejected = sum(rows.values()) - mixed, sum(sum(reasons.values()) for reasons in facts.rejected.values())
    failed = sum(facts.failed.values())
    lines += ["", "## What became of every row", "", "| fate | reason | rows |", "|---|---|---:|"]
    lines += [f"| kept | | {kept:,} |"]
    if facts.not_chosen:
        lines += [f"| kept, not chosen for these splits | diversity | {facts.not_chosen:,} |"]
    for name, reasons in sorted(facts.rejected.items()):
        lines += [f"| rejected by {escape(name)} | {escape(r)} | {count:,} |" for r, count in sorted(reasons.items())]
    lines += [f"| failed | {escape(reason)} | {count:,} |" for reason, count in sorted(facts.failed.items())]
    planned = facts.planned if facts.planned is not None else kept + facts.not_chosen + rejected + failed
    lines += [f"| **planned** | | **{planned:,}** |"]
    if facts.cost_usd is not None:
        bound = "at least " if facts.unknown_cost else ""
        each = f", {float(facts.cost_usd) / kept:.6f} USD a kept row" if kept else ""
        lines += ["", f"Cost: {bound}{float(facts.cost_usd):.4f} USD{each}."]
    return "\n".join(lines)


def _topics(leaves: Mapping[str, int]) -> str:
    if len(leaves) < 2:
        return ""
    lines = ["## Topics", "", "| topic | rows |", "|---|---:|"]
    shown = sorted(leaves.items(), key=lambda item: (-item[1], item[0]))
    lines += [f"| {escape(leaf)} | {count:,} |" for leaf, count in shown[:_MAX]]
    if len(shown) > _MAX:
        lines += [f"| and {len(shown) - _MAX:,} more | {sum(count for _, count in shown[_MAX:]):,} |"]
    return "\n".join(lines)


def _making(facts: CardFacts) -> str:
    made = [("recipe digest", facts.recipe_digest), ("method", facts.method)]
    made += [("seed", "" if facts.seed is None else str(facts.seed))]
    made += [(name, version) for name, version in facts.versions.items()]
    lines = [f"- {escape(name)}: {escape(value)}" for name, value in made if value]
    if facts.eval_sets:
        lines += [f"- compared with: {', '.join(escape(name) for name in facts.eval_sets)}"]
    return "\n".join(["## How it was made", "", *lines]) if lines else ""


def _teachers(facts: CardFacts) -> str:
    if not facts.teachers:
        return ""
    lines = ["## Teachers", "", "| name | provider | model | requests | USD |", "|---|---|---|---:|---:|"]
    for teacher in facts.teachers:
        requests = "" if teacher.requests is None else f"{teacher.requests:,}"
        cost = "" if teacher.cost_usd is None else f"{float(teacher.cost_usd):.4f}"
        cells = (teacher.name, teacher.provider, teacher.model)
        lines.append(f"| {' | '.join(escape(cell) for cell in cells)} | {requests} | {cost} |")
    lines += ["", "### Terms of use of their outputs", ""]
    lines += [
        f"As known on {CHECKED}, in short. **Check this yourself**: terms change, and only their text counts.",
        "",
    ]
    lines += ["| model | terms |", "|---|---|"]
    for teacher in facts.teachers:
        if teacher.provider == "simulated":
            says = "None: no model was asked."
        else:
            terms = terms_of(teacher.provider, teacher.model)
            says = f"{terms.name}: {terms.says}" if terms else "Not in the table: read the terms of its provider."
        lines.append(f"| {escape(teacher.model)} | {escape(says, limit=600)} |")
    return "\n".join(lines)


def _limits(facts: CardFacts) -> str:
    lines = [
        "## Limits",
        "",
        "- The rows are synthetic: they carry the errors, gaps and biases of the models that wrote them.",
        "- Nobody has read every row.",
        "- Near-duplicates and overlaps with eval sets were looked for by the filters named above, with their "
        "thresholds; paraphrases and translations can pass them.",
    ]
    if not facts.eval_sets:
        lines.append("- The rows were compared with no eval set: do not assume that they hold none of its questions.")
    return "\n".join(lines)
