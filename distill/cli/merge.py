"""`distill merge`: an adapter becomes part of its base's weights. Given run directories, it is `distill unite`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from distill.cli.console import JsonOption, QuietOption, err, print_json, run_loop, safe
from distill.cli.unite import unite_runs
from distill.errors import GateFailed, InputError

__all__ = ["merge", "raise_failed", "show_gates"]


def merge(
    out: Annotated[Path, typer.Option("--out", help="Where the merged model goes.")],
    runs: Annotated[list[Path] | None, typer.Argument(metavar="RUN", hidden=True)] = None,
    model: Annotated[
        str | None,
        typer.Option("--model", help="The adapter's base, by name or folder; else what it was trained on."),
    ] = None,
    adapter: Annotated[Path | None, typer.Option("--adapter", help="An adapter folder, or a training's --out.")] = None,
    holdout: Annotated[Path | None, typer.Option("--holdout", help="Score adapter and candidates on it.")] = None,
    metric: Annotated[
        list[str] | None, typer.Option("--metric", help="As in `distill eval`; the first one decides.")
    ] = None,
    gate: Annotated[
        list[str] | None,
        typer.Option("--gate", help="Condition on kl, top1, drop, sure_drop or a metric; left out: the usual three."),
    ] = None,
    data: Annotated[Path | None, typer.Option("--data", help="Rows for the parity, where there is no holdout.")] = None,
    schema: Annotated[Path | None, typer.Option("--schema", help="JSON Schema that json_valid asks for.")] = None,
    max_tokens: Annotated[int, typer.Option("--max-tokens", min=1, help="Longest answer.")] = 128,
    batch_size: Annotated[int, typer.Option("--batch-size", min=1, help="Prompts answered at once.")] = 32,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a merged model in --out.")] = False,
    recipe: Annotated[Path | None, typer.Option("--recipe", hidden=True)] = None,
    partial: Annotated[bool, typer.Option("--partial", hidden=True)] = False,
    json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Merge an adapter into its base.

    The adapter of a 4-bit base is merged both into the full-precision base and into the dequantised one; the better of
    the two is kept. Exit code 4 where a gate fails: by default when the merged model is not the adapter any more.

    The shards of a run are united by `distill unite`; `distill merge RUN… --out DIR` is the same.
    """
    if runs:
        given: dict[str, object] = {"--model": model, "--adapter": adapter, "--holdout": holdout, "--data": data}
        given |= {"--metric": metric, "--gate": gate, "--schema": schema, "--overwrite": overwrite}
        if named := [name for name, value in given.items() if value]:
            raise InputError(f"goes with an adapter, not with run directories ({runs[0]}, …)", field=named[0])
        raise typer.Exit(unite_runs(runs, out, recipe=recipe, partial=partial, json=json, quiet=quiet))
    if recipe is not None or partial:
        raise InputError("goes with the run directories of shards", field="--recipe" if recipe else "--partial")
    if adapter is None:
        raise InputError(
            "Missing option '--adapter'.",
            hint="Name --adapter to merge one into its base, or the run directories of shards.",
        )
    from distill.evaluate import parse_metric, read_holdout
    from distill.release import merge as merge_adapter
    from distill.release.merge import GATES
    from distill.train import read_rows
    from distill.train.bases import start_from

    result = run_loop(
        merge_adapter(
            model or str(start_from(adapter).base.folder),
            adapter,
            out,
            holdout=read_holdout(holdout) if holdout is not None else None,
            metrics=[parse_metric(text, schema=schema) for text in metric or ("json_valid", "exact_match")],
            gates=gate or GATES,
            rows=list(read_rows(data)) if data is not None else (),
            max_tokens=max_tokens,
            batch_size=batch_size,
            overwrite=overwrite,
            progress=(lambda _: None) if quiet else lambda text: err.print(safe(text)),
        )
    )
    facts = result.as_json()
    if not quiet:
        err.print(_table(facts))
        err.print(f"kept: {facts['chosen']}: {facts['reason']}")
        show_gates(facts["gates"])
        err.print(safe(str(out)))
    if json:
        print_json(facts)
    raise_failed(facts["gates"], f"the figures are in {facts['merge_json']}")


def show_gates(gates: list[dict[str, Any]]) -> None:
    """Each gate on a line of stderr."""
    for gate in gates:
        held = Text("holds", style="green") if gate["passed"] else Text("fails", style="red")
        err.print(Text(f"gate {gate['gate']}: {gate['value']:.4g} ") + held)


def raise_failed(gates: list[dict[str, Any]], hint: str) -> None:
    """Exit code 4 where one of `gates` does not hold."""
    failed = [gate for gate in gates if not gate["passed"]]
    if failed:
        raise GateFailed("; ".join(f"{gate['gate']} does not hold: {gate['value']:.4g}" for gate in failed), hint=hint)


def _table(facts: dict[str, Any]) -> Table:
    names = list(facts.get("adapter_metrics", {}))
    table = Table("candidate", "KL", "top-1", *names)
    if names:
        table.add_row("adapter", "", "", *(f"{facts['adapter_metrics'][name]:.3f}" for name in names))
    for candidate, found in facts["candidates"].items():
        parity, metrics = found["parity"], found.get("metrics", {})
        scores = [f"{metrics[name]:.3f}" for name in names]
        table.add_row(candidate, f"{parity['kl']:.2g}", f"{parity['top1']:.3f}", *scores)
    return table
