"""What an evaluation of a recipe needs besides systems: the frozen holdout, judges, and earlier scores."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from distill.cli.console import err, safe
from distill.errors import InputError

if TYPE_CHECKING:
    from distill.evaluate import Metric
    from distill.evaluate.frozen import Frozen
    from distill.evaluate.gates import Baseline
    from distill.evaluate.judge import Desk
    from distill.recipe import Recipe

__all__ = ["baseline_in", "freeze_holdout", "open_desk"]


def freeze_holdout(recipe: Recipe, *, new_version: bool = False) -> Frozen | None:
    """Freeze the recipe's holdout, or make sure that it has not changed; None where the recipe has none.

    Raises:
        InputError: it has changed and `new_version` is not given.
    """
    if recipe.evaluate is None:
        return None
    from distill.assets import find, workspace_of
    from distill.evaluate import read_holdout
    from distill.evaluate.frozen import freeze

    file = find("data", recipe.evaluate.holdout, base=recipe.folder)
    frozen = freeze(read_holdout(file), file, workspace_of(recipe.folder), new_version=new_version)
    if frozen.new:
        err.print(safe(f"holdout {file.name} frozen as version {frozen.version}: {frozen.items} items"))
    return frozen


@contextlib.asynccontextmanager
async def open_desk(recipe: Recipe, metrics: Sequence[Metric], run: Path) -> AsyncGenerator[Desk | None]:
    """Judges behind the gateway, with the answer store of the workspace; None where nobody is asked."""
    from distill.evaluate.metrics import AskedMetric

    config = recipe.evaluate
    asked = [metric.teacher or "" for metric in metrics if isinstance(metric, AskedMetric)]
    asked += [config.unsafe.judge] if config is not None and config.unsafe.judge is not None else []
    if not asked:
        yield None
        return
    from distill.assets import workspace_of
    from distill.evaluate.judge import Desk, teacher_of
    from distill.gateway import Gateway, open_store, store_address
    from distill.methods.asking import Voice
    from distill.prompting import PromptBook
    from distill.teachers import make_teacher

    default = config.judge if config is not None else None
    judges = {teacher_of(name, default, recipe.teachers) for name in asked}
    store = open_store(workspace_of(recipe.folder), store_address(recipe.store))
    try:
        sampling = {name: Voice.of(recipe, name).params for name in recipe.teachers}
        teachers = {name: make_teacher(name, recipe.teachers[name]) for name in sorted(judges)}
        run_name = f"{run.name}/judge"
        async with Gateway(teachers, recipe.teachers, store, run=run_name, budget=recipe.budget) as gateway:
            yield Desk(gateway.ask, PromptBook(recipe.folder), sampling, default)
    finally:
        store.close()


def baseline_in(folder: Path) -> Callable[[str], Baseline]:
    """Finds what a gate holds a score against: a release of the workspace of `folder`, or a scorecard."""

    def resolve(words: str) -> Baseline:
        from distill.evaluate.gates import Baseline, resolve_file

        place, _, what = words.partition(":")
        if place != "release":
            return resolve_file(words)
        from distill.assets import workspace_of
        from distill.release import Registry

        release = Registry(workspace_of(folder) / "releases").find(what).release
        if release.score is None:
            raise InputError(f"{release.title} has no score", hint="release it again with --eval")
        score = release.score
        values = {name: figure["value"] for name, figure in score.metrics.items()}
        return Baseline(release.title, score.holdout_digest, values, score.per_leaf)

    return resolve
