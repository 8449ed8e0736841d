"""`distill run`: the whole road, generate, filter, train, evaluate; `distill quickstart`: the same for newcomers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

from distill.cli.console import (
    JsonOption,
    NewOption,
    QuietOption,
    RecipeArgument,
    RunOption,
    err,
    find_recipe,
    out,
    print_json,
)
from distill.cli.eval import Further, evaluate_run, score_table
from distill.cli.generate import generate_run
from distill.cli.loading import load
from distill.cli.progress import duration
from distill.cli.train import train_run
from distill.errors import InputError

if TYPE_CHECKING:
    from distill.recipe import Recipe

__all__ = ["quickstart", "run"]


def run(
    recipe: RecipeArgument,
    directory: RunOption = None,
    new: NewOption = False,
    json: JsonOption = False,
    quiet: QuietOption = False,
    new_holdout: Annotated[
        bool,
        typer.Option("--new-holdout-version", help="A changed holdout is meant: its scores start a new version."),
    ] = False,
    allow_code: Annotated[
        bool, typer.Option("--allow-code", help="Run the programs that pass_at_k draws, in a sandbox.")
    ] = False,
) -> None:
    """Generate, filter, train and evaluate.

    The same command continues where it stopped.
    """
    allowed = Allowed(new_holdout, allow_code)
    raise typer.Exit(_road(find_recipe(recipe), allowed, directory=directory, new=new, json=json, quiet=quiet))


def quickstart(
    json: JsonOption = False,
) -> None:
    """Run recipes/support.yaml from end to end.

    The embedded models are fetched first; no key, no GPU.
    """
    from distill.models import list_models, pull

    path = find_recipe("support")
    recipe = load(path)
    needed = {teacher.model for teacher in recipe.teachers.values() if teacher.provider == "local"}
    if recipe.train is not None:
        needed.add(recipe.train.model)
    models = {model.name: model for model in list_models() if model.name in needed}
    absent = [item for item in models.values() if not item.present]
    err.print(Text(recipe.name, style="bold") + Text(f": {recipe.description}"))
    size = sum(item.model.size for item in absent) / 1e6
    err.print(f"  1. fetch {size:,.0f} MB of weights ({', '.join(item.name for item in absent) or 'all here'})")
    for number, (step, minutes) in enumerate(
        (
            (f"the teacher writes {recipe.plan.target} rows, and filters judge them", 9),
            ("the student is trained", 4),
            ("base, student and teacher answer the holdout", 6),
        ),
        start=2,
    ):
        err.print(f"  {number}. {step:<56} about {minutes} minutes on 2 cores")
    for item in absent:
        err.print(f"fetching {item.name}")
        pull(item.name)
    raise typer.Exit(_road(path, Allowed(), directory=None, new=False, json=json, quiet=False))


@dataclass(frozen=True)
class Allowed:
    """What only the person at the keyboard can say."""

    new_holdout: bool = False
    code: bool = False


def _road(path: Path, allowed: Allowed, *, directory: Path | None, new: bool, json: bool, quiet: bool) -> int:
    import time

    from distill.io.memory import hand_back
    from distill.studio.report import write_report

    recipe = load(path)
    _refuse_what_cannot_end(recipe, allowed)
    started = time.monotonic()
    result: dict[str, Any] = {}
    summary = generate_run(path, run=directory, new=new, quiet=quiet)
    result["generate"] = summary.as_json()
    code = summary.exit_code
    if code == 0 and recipe.train is not None:
        result["train"] = train_run(recipe, summary.run, quiet=quiet, new_holdout=allowed.new_holdout)
        hand_back()  # the holdout's models come next
    if code == 0 and recipe.evaluate is not None:
        scorecard, code = evaluate_run(recipe, summary.run, quiet=quiet, further=Further(allow_code=allowed.code))
        result["eval"] = scorecard
        out.print(score_table(scorecard)) if not json else None
    report = write_report(summary.run)
    result.update(run=str(summary.run), report=str(report), seconds=round(time.monotonic() - started, 1))
    if json:
        print_json(result)
    else:
        out.print(f"{duration(result['seconds'])}   {report}", markup=False)
    return code


def _refuse_what_cannot_end(recipe: Recipe, allowed: Allowed) -> None:
    """A gate that cannot hold or a student that is not here is told now, not after hours of generation."""
    from distill.cli.proving import baseline_in
    from distill.engine.check import check
    from distill.evaluate.check import check_evaluation

    proof = check_evaluation(recipe, allow_code=allowed.code, baseline=baseline_in(recipe.folder))
    wrong = [finding for finding in (*check(recipe), *proof) if finding.level == "error"]
    if wrong:
        raise InputError("\n".join(f"{finding.what}: {finding.detail}" for finding in wrong))
