"""What can be known about a recipe without asking a teacher anything."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from distill.assets import find
from distill.engine.hook import Hook
from distill.engine.prepare import Prepared, prepare
from distill.errors import InputError
from distill.filters.cost import cost_notes
from distill.gateway import Address, price_for
from distill.models import path as model_path
from distill.recipe import Recipe, literal_secret
from distill.teachers import make_teacher

__all__ = ["Finding", "check"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at. `error` stops a run, `warn` is for the user to weigh."""

    level: Literal["ok", "warn", "error"]
    what: str
    detail: str


def check(recipe: Recipe, *, workspace: Path | None = None) -> list[Finding]:
    """Look at everything that needs no call: files, templates, schemas, prices, secrets, budget, models."""
    findings: list[Finding] = []
    try:
        prepared = prepare(recipe, workspace=workspace)
    except InputError as error:
        return [Finding("error", "files", str(error))]
    for part in (_plan, _prompts, _filters, _teachers, _store, _student, _hook):
        try:
            findings.extend(part(prepared))
        except InputError as error:
            if all(finding.detail != str(error) for finding in findings):
                findings.append(Finding("error", part.__name__.strip("_"), str(error)))
    return findings


def _plan(prepared: Prepared) -> Iterator[Finding]:
    planner = prepared.planner()
    target = prepared.recipe.plan.target
    quota = planner.quota(target)
    sizes = sorted(quota.values())
    yield Finding(
        "ok",
        "plan",
        f"{target} rows over {len(quota)} leaves, {sizes[0]} to {sizes[-1]} each; "
        f"{sum(1 for _ in prepared.taxonomy.seeds()) + len(prepared.seeds)} seeds",
    )
    if sizes[0] == 0:
        empty = sum(1 for size in sizes if size == 0)
        yield Finding("warn", "plan", f"{empty} leaves get no row: the target is smaller than the taxonomy")


def _prompts(prepared: Prepared) -> Iterator[Finding]:
    # Adversarial slots come early in the sequence and take other branches of a template than standard ones.
    slots = list(itertools.islice(prepared.planner().slots(), 64))
    for name in prepared.prompt_names:
        prompt = prepared.prompts.get(name)
        for slot in slots:
            prompt.check(slot)
        yield Finding("ok", f"prompt {name}", f"renders on {len(slots)} sample slots")
    prepared.method()


def _filters(prepared: Prepared) -> Iterator[Finding]:
    chain = prepared.chain()
    steps = [step.name for step in chain.steps]
    if prepared.choice is not None:
        steps.append(prepared.choice.name or prepared.choice.kind)
    names = ", ".join(steps) or "none"
    yield Finding("ok", "filters", names)
    for note in cost_notes(prepared.steps):
        yield Finding("warn", "filters", note)
    for eval_set in prepared.eval_sets:
        yield Finding(
            "ok",
            "eval set",
            f"{eval_set.name or eval_set.path}: {find('data', eval_set.path, base=prepared.recipe.folder)}",
        )


def _teachers(prepared: Prepared) -> Iterator[Finding]:
    recipe = prepared.recipe
    for name, teacher in recipe.teachers.items():
        where = f"teachers.{name}"
        if teacher.provider == "local":
            model_path(teacher.model)
        else:
            try:
                make_teacher(name, teacher)
            except InputError as error:
                yield Finding("error", where, str(error))
        if literal_secret(teacher.api_key):
            yield Finding("warn", where, "api_key stands in the recipe: write ${NAME} and set the variable instead")
        if teacher.provider == "simulated":
            yield Finding("warn", where, "simulated: a rehearsal, no real answers")
        price = price_for(teacher)
        if price is not None:
            yield Finding("ok", where, f"{teacher.model}: ${price.input} in, ${price.output} out per million tokens")
        elif recipe.budget.unknown_price == "tokens_only":
            yield Finding("warn", where, f"the price of {teacher.model} is not known: only tokens are counted")
        else:
            yield Finding(
                "error",
                where,
                f"the price of {teacher.model} is not known: add `price: {{input: …, output: …}}` (USD per million "
                "tokens), or `budget: {unknown_price: tokens_only}`",
            )
    for name, group in recipe.teacher_groups.items():
        total = sum(group.share.values())
        shares = ", ".join(f"{member} {share / total:.0%}" for member, share in group.share.items())
        _, *others = group.order(next(iter(group.share)))
        if len(group.share) > 1 and group.fallback is None:
            instead = "one in place of another"
        else:
            instead = f"then {', '.join(others)}" if others else "nobody in place of another"
        yield Finding("ok", f"teacher_groups.{name}", f"{shares}; {instead}")


def _store(prepared: Prepared) -> Iterator[Finding]:
    if prepared.store is not None:
        yield Finding("ok", "store", Address(prepared.store.get_secret_value()).shown)
    if literal_secret(prepared.recipe.store):
        yield Finding("warn", "store", "its address stands in the recipe: write ${NAME} and set the variable instead")


def _student(prepared: Prepared) -> Iterator[Finding]:
    recipe = prepared.recipe
    if recipe.train is not None:
        model_path(recipe.train.model)
        yield Finding("ok", "train", f"student {recipe.train.model}, {recipe.train.adapter}")


def _hook(prepared: Prepared) -> Iterator[Finding]:
    recipe = prepared.recipe
    if recipe.hook is None:
        return
    Hook(recipe.hook, folder=recipe.folder)
    who = [f"runs {recipe.hook.command[0]}"] if recipe.hook.command else []
    who += ["posts to the webhook"] if recipe.hook.webhook is not None else []
    yield Finding("ok", "hook", f"{' and '.join(who)} when the run is {', '.join(recipe.hook.on)}")
    if literal_secret(recipe.hook.webhook):
        yield Finding("warn", "hook", "webhook stands in the recipe: write ${NAME} and set the variable instead")
