"""`distill export`: the student in the format of another engine."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from distill.cli.console import err, print_json, run_loop, safe
from distill.cli.merge import raise_failed, show_gates

__all__ = ["app"]

app = typer.Typer(help="The student in the format of another engine.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    """The student in the format of another engine."""


@app.command()
def gguf(
    model: Annotated[str, typer.Option("--model", help="A model folder (of `distill merge`) or a catalogue name.")],
    out: Annotated[Path, typer.Option("--out", help="The file; for several quantisations, a folder.")],
    quant: Annotated[
        list[str] | None, typer.Option("--quant", help="f32, f16, bf16, q8_0, q4_k_m, q4_0; may be given again.")
    ] = None,
    holdout: Annotated[Path | None, typer.Option("--holdout", help="Score the model and every file on it.")] = None,
    metric: Annotated[list[str] | None, typer.Option("--metric", help="As in `distill eval`.")] = None,
    gate: Annotated[
        list[str] | None,
        typer.Option("--gate", help="Condition on tokenisation, template, greedy, drop, sure_drop or a metric."),
    ] = None,
    schema: Annotated[Path | None, typer.Option("--schema", help="JSON Schema that json_valid asks for.")] = None,
    max_tokens: Annotated[int, typer.Option("--max-tokens", min=1, help="Longest answer.")] = 128,
    batch_size: Annotated[int, typer.Option("--batch-size", min=1, help="Prompts the model answers at once.")] = 32,
    latency_items: Annotated[int, typer.Option("--latency-items", min=0, help="Prompts answered singly; 0: none.")] = 8,
    check: Annotated[bool, typer.Option("--check/--no-check", help="Run the files in llama.cpp.")] = True,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")] = False,
) -> None:
    """Write GGUF files and run them in llama.cpp.

    Families: llama, mistral, qwen2, qwen3, gemma3. Exit code 4 where a gate fails: by default when llama.cpp cuts text
    or builds prompts otherwise than in training, or when a metric is surely lower than the model's.
    """
    from distill.evaluate import parse_metric, read_holdout
    from distill.release.gguf import export_gguf

    files = run_loop(
        export_gguf(
            model,
            out,
            quant or ("q8_0",),
            holdout=read_holdout(holdout) if holdout is not None else None,
            metrics=[parse_metric(text, schema=schema) for text in metric or ("json_valid", "exact_match")],
            gates=gate,
            run=check,
            max_tokens=max_tokens,
            batch_size=batch_size,
            latency_items=latency_items,
            progress=(lambda _: None) if quiet else lambda text: err.print(safe(text)),
        )
    )
    if not quiet:
        err.print(_table(files.proofs))
        show_gates(files.gates)
    if json:
        print_json(files.as_json())
    raise_failed(files.gates, "the files are written; their figures stand beside them in .json")


@app.command("lm-eval")
def lm_eval(
    model: Annotated[str, typer.Option("--model", help="A catalogue name or a model folder.")],
    holdout: Annotated[Path, typer.Option("--holdout", help="JSONL of messages, answer, optional leaf.")],
    out: Annotated[Path, typer.Option("--out", help="Where the task goes.")],
    adapter: Annotated[Path | None, typer.Option("--adapter", help="An adapter folder, or a training's --out.")] = None,
    name: Annotated[str, typer.Option("--name", help="Of the task.")] = "holdout",
    max_tokens: Annotated[int, typer.Option("--max-tokens", min=1, help="Longest answer.")] = 128,
    batch_size: Annotated[int, typer.Option("--batch-size", min=1, help="Prompts answered at once.")] = 32,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")] = False,
) -> None:
    """Write a holdout as a task of lm-evaluation-harness.

    With the prompt of training and evaluation, so that both programs count the same: exact match of the text.
    """
    from distill.evaluate import Student, read_holdout
    from distill.evaluate.lm_harness import write_task

    student = Student(model, adapter, max_tokens=max_tokens, batch_size=batch_size)
    task = write_task(student, read_holdout(holdout).items, out, name=name)
    err.print(safe(f"{out}: in an environment with lm-eval[hf] run"))
    err.print(safe(f"HF_HUB_OFFLINE=1 {' '.join(task.command)}"))
    if json:
        print_json({"out": str(out), "task": task.name, "command": list(task.command)})


@app.command("gptq")
@app.command("awq")
def w4a16(
    context: typer.Context,
    model: Annotated[str, typer.Option("--model", help="A model folder (of `distill merge`) or a catalogue name.")],
    data: Annotated[Path, typer.Option("--data", help="Training rows to calibrate on, 128 at most.")],
    holdout: Annotated[Path, typer.Option("--holdout", help="Score the model and the quantised one on it.")],
    out: Annotated[Path, typer.Option("--out", help="The folder of the quantised model.")],
    python: Annotated[
        Path | None,
        typer.Option("--python", help="Of the environment with llmcompressor; else what DISTILL_QUANT_PYTHON names."),
    ] = None,
    metric: Annotated[list[str] | None, typer.Option("--metric", help="As in `distill eval`.")] = None,
    gate: Annotated[
        list[str] | None, typer.Option("--gate", help="Condition on greedy, drop, sure_drop or a metric.")
    ] = None,
    schema: Annotated[Path | None, typer.Option("--schema", help="JSON Schema that json_valid asks for.")] = None,
    max_tokens: Annotated[int, typer.Option("--max-tokens", min=1, help="Longest answer.")] = 128,
    batch_size: Annotated[int, typer.Option("--batch-size", min=1, help="Prompts answered at once.")] = 32,
    latency_items: Annotated[int, typer.Option("--latency-items", min=0, help="Prompts answered singly; 0: none.")] = 8,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of the calibration.")] = 0,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an exported model in --out.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")] = False,
) -> None:
    """Write 4-bit weights with llmcompressor, which runs in an environment of its own, and prove them.

    Exit code 4 where a gate fails: by default when a metric is surely lower than the model's.
    """
    from distill.evaluate import parse_metric, read_holdout
    from distill.release.w4a16 import GATES, export_w4a16, find_python
    from distill.train import read_rows

    facts = run_loop(
        export_w4a16(
            "awq" if context.info_name == "awq" else "gptq",
            model,
            out,
            rows=list(read_rows(data)),
            holdout=read_holdout(holdout),
            metrics=[parse_metric(text, schema=schema) for text in metric or ("json_valid", "exact_match")],
            python=find_python(python),
            gates=gate or GATES,
            max_tokens=max_tokens,
            batch_size=batch_size,
            latency_items=latency_items,
            seed=seed,
            overwrite=overwrite,
            progress=(lambda _: None) if quiet else lambda text: err.print(safe(text)),
        )
    )
    if not quiet:
        table = Table("", "MB", "greedy", *facts["metrics"])
        table.add_row("model", "", "", *(f"{value:.3f}" for value in facts["model_metrics"].values()))
        found = (f"{value:.3f}" for value in facts["metrics"].values())
        table.add_row(facts["method"], f"{facts['bytes'] / 1e6:,.0f}", f"{facts['greedy']:.3f}", *found)
        err.print(table)
        show_gates(facts["gates"])
        err.print(safe(str(out)))
    if json:
        print_json(facts)
    raise_failed(facts["gates"], f"the model is written; its figures are in {facts['export_json']}")


def _table(proofs: Sequence[dict[str, Any]]) -> Table:
    figures = [name for name in ("tokenisation", "template", "greedy") if name in proofs[0]]
    metrics = list(proofs[0]["metrics"])
    table = Table("quant", "MB", *figures, *metrics)
    for proof in proofs:
        values = [f"{proof[name]:.3f}" for name in figures] + [f"{proof['metrics'][name]:.3f}" for name in metrics]
        table.add_row(proof["quant"], f"{proof['bytes'] / 1e6:,.0f}", *values)
    return table
