"""What a session leaves beside its rows: the training files with their card, and the figures.

The card is part of the dataset, so everything in it is decided by the rows: an interrupted run and an uninterrupted
one write the same bytes.
"""

from __future__ import annotations

from dataclasses import replace
from importlib.metadata import version
from typing import Any

import orjson

from distill.assets import find
from distill.dataset.card import CardFacts, TeacherFacts
from distill.dataset.export import write_dataset
from distill.engine.accounting import Account
from distill.engine.prepare import Prepared
from distill.engine.rundir import RunDir
from distill.engine.session import teachers_used
from distill.filters import Chain
from distill.filters.selection.mixing import Mixed, general_rows, wanted_rows
from distill.filters.selection.passes import ChoicePass, Chosen
from distill.gateway import price_for
from distill.io import write_bytes

__all__ = ["export"]


def export(prepared: Prepared, account: Account, directory: RunDir, chain: Chain) -> dict[str, Any]:
    """Write `dataset/`, `metrics.json` and what the filters have to tell; returns what was written of the dataset.

    Raises:
        InputError: the rows do not fit the layout that the recipe asks for.
    """
    recipe = prepared.recipe
    used = teachers_used(recipe)
    counts = account.as_json()
    facts = CardFacts(
        name=recipe.name,
        description=recipe.description,
        recipe_digest=prepared.inputs,
        method=recipe.method.kind,
        seed=recipe.seed,
        planned=account.planned,
        rejected=counts["rejected"],
        failed=counts["failed"],
        cost_usd=account.cost_kept + account.cost_rejected + account.cost_failed,
        unknown_cost=any(price_for(recipe.teachers[name]) is None for name in used),
        teachers=[TeacherFacts(name, recipe.teachers[name].provider, recipe.teachers[name].model) for name in used],
        versions={"distill": version("distill")},
        eval_sets=[item.name or item.path for item in prepared.eval_sets],
        simulated=any(recipe.teachers[name].provider == "simulated" for name in used),
    )
    layout = recipe.dataset
    if layout.format == "auto" and recipe.method.kind == "response":
        # A thinking teacher's rows have a chain too; the answer alone is what the method is for.
        layout = layout.model_copy(update={"format": "messages"})
    chosen = _choose(prepared, directory)
    if chosen is not None:
        facts = replace(facts, not_chosen=chosen.dropped)
    mixed: Mixed | None = None

    def extra(own: int) -> list[dict[str, Any]]:
        nonlocal mixed
        if recipe.dataset.mix is None:
            return []
        path = find("data", recipe.dataset.mix.path, base=recipe.folder)
        wanted = wanted_rows(own, recipe.dataset.mix.share)
        mixed = general_rows(path, wanted, folder=recipe.folder, eval_sets=prepared.eval_sets)
        return mixed.records

    stays = None if chosen is None else chosen.stays
    report = write_dataset(
        directory.rows, directory.dataset, layout, seed=recipe.seed, card=facts, extra=extra, stays=stays
    )
    metrics = {**counts, "leaves": account.leaves_as_json(), "dataset": {"format": report.format, "rows": report.rows}}
    if mixed is not None:
        metrics["mixed"] = {"rows": len(mixed.records), "rejected": mixed.rejected, "note": mixed.note}
    if chosen is not None:
        metrics["diversity"] = {"chosen": chosen.kept, "not_chosen": chosen.dropped, **chosen.figures}
    if chain.calibrated:
        metrics["calibrated"] = chain.calibrated
    if chain.masked:
        metrics["masked"] = chain.masked
    if reports := chain.reports():
        write_bytes(directory.decontamination, orjson.dumps(reports, option=orjson.OPT_INDENT_2))
    chain.save(directory.index)
    write_bytes(directory.metrics, orjson.dumps(metrics, option=orjson.OPT_INDENT_2))
    return report.as_json()


def _choose(prepared: Prepared, directory: RunDir) -> Chosen | None:
    """Which of the kept rows go into the training files, where the recipe's filters end with a choice."""
    step = prepared.choice
    if step is None:
        directory.diversity.unlink(missing_ok=True)
        return None
    return ChoicePass(step, step.name or step.kind, prepared.recipe.folder).choose(directory.rows, directory.diversity)
