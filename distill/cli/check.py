"""`distill check`: what is wrong with a recipe, before anything is paid."""

from __future__ import annotations

import typer
from rich.text import Text

from distill.cli.console import JsonOption, RecipeArgument, find_recipe, out, print_json, safe
from distill.cli.loading import load

__all__ = ["check"]


def check(
    recipe: RecipeArgument,
    json: JsonOption = False,
) -> None:
    """Check a recipe without asking a teacher anything.

    Files, templates on sample slots, schemas, filters, prices, secrets, weights, metrics and gates. Exit code 2 where
    something has to be mended.
    """
    from distill.cli.proving import baseline_in
    from distill.engine.check import check as check_recipe
    from distill.evaluate.check import check_evaluation

    path = find_recipe(recipe)
    loaded = load(path)
    findings = [*check_recipe(loaded), *check_evaluation(loaded, baseline=baseline_in(loaded.folder))]
    errors = sum(finding.level == "error" for finding in findings)
    if json:
        print_json(
            {
                "recipe": str(path),
                "errors": errors,
                "findings": [{"level": f.level, "what": f.what, "detail": f.detail} for f in findings],
            }
        )
    else:
        marks = {"ok": "[green]ok   [/]", "warn": "[yellow]warn [/]", "error": "[red]error[/]"}
        for finding in findings:
            out.print(Text.from_markup(marks[finding.level]), safe(f"{finding.what}: {finding.detail}"))
        out.print("ready" if not errors else f"{errors} to mend")
    raise typer.Exit(2 if errors else 0)
