"""`distill export`: the student in the format of another engine."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Any

import orjson
import typer
from rich.table import Table

from distill.cli.console import err, print_json, run_loop, safe
from distill.cli.merge import raise_failed, show_gates
from distill.errors import InputError

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
    max_tokens: Annotated[int, typer.Option("--max-tokens", help="Longest answer.")] = 128,
    batch_size: Annotated[int, typer.Option("--batch-size", help="Prompts the model answers at once.")] = 32,
    latency_items: Annotated[int, typer.Option("--latency-items", help="Prompts answered singly; 0: none.")] = 8,
    check: Annotated[bool, typer.Option("--check/--no-check", help="Run the files in llama.cpp.")] = True,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")] = False,
) -> None:
    """Write GGUF files and run them in llama.cpp.

    Families: llama, mistral, qwen2, qwen3, gemma3. Exit code 4 where a gate fails: by default when llama.cpp cuts text
    or builds prompts otherwise than in training, or when a metric is surely lower than the model's.
    """
    from distill.evaluate import parse_metric, read_holdout
    from distill.release.export import QUANTISATIONS, Quantisation, write_gguf
    from distill.release.gates import check_values
    from distill.release.proof import FIGURES, prove
    from distill.train import locate
    from distill.train.memory import peak_memory

    started = time.monotonic()
    given = quant or ["q8_0"]
    for name in given:
        if name not in QUANTISATIONS:
            known_ones = ", ".join(QUANTISATIONS)
            raise InputError(f"no such quantisation: {name}", field="--quant", hint=f"there are: {known_ones}")
    wanted: list[Quantisation] = [each for each in QUANTISATIONS if each in given]
    items = read_holdout(holdout) if holdout is not None else None
    metrics = [parse_metric(text, schema=schema) for text in metric or ("json_valid", "exact_match")]
    known = [name for name in FIGURES if items is not None or "drop" not in name]
    names = [*known, *(m.name for m in metrics if items is not None)]
    check_values(gate or (), dict.fromkeys(names, 0.0))
    if not check and (items is not None or gate):
        raise InputError("asks for figures that only a run gives", field="--no-check", hint="leave out one of them")
    place = locate(model)
    exported: list[Any] = []
    for chosen in wanted:
        file = _file(out, place.name, chosen, several=len(wanted) > 1)
        exported.append(write_gguf(model, file, chosen))
        if not quiet:
            err.print(safe(f"{file}: {exported[-1].bytes / 1e6:,.0f} MB"))
    scored = out / "eval" if len(wanted) > 1 else out.with_name(f"{out.name}.eval")
    proofs: list[dict[str, Any]] = []
    if check:
        found, _ = run_loop(
            prove(
                model,
                exported,
                scored,
                holdout=items,
                metrics=metrics,
                gates=gate,
                max_tokens=max_tokens,
                batch_size=batch_size,
                latency_items=latency_items,
                progress=(lambda _: None) if quiet else lambda text: err.print(safe(text)),
            )
        )
        proofs = [proof.as_json() for proof in found]
    else:
        proofs = [_unproved(item) for item in exported]
    for proof in proofs:
        _record(Path(proof["file"]), proof, place.name, items)
    result = {
        "out": str(out),
        **({"file": proofs[0]["file"]} if len(proofs) == 1 else {}),
        "files": proofs,
        "scorecard": str(scored / "scorecard.json") if items is not None else None,
        "passed": all(proof["passed"] for proof in proofs) if check else None,
        "seconds": round(time.monotonic() - started, 1),
        "peak_memory_bytes": peak_memory(),
    }
    failed = [{**g, "gate": f"{p['quant']}: {g['gate']}"} for p in proofs for g in p["gates"]]
    if not quiet:
        err.print(_table(proofs))
        show_gates(failed)
    if json:
        print_json(result)
    raise_failed(failed, "the files are written; their figures stand beside them in .json")


@app.command("lm-eval")
def lm_eval(
    model: Annotated[str, typer.Option("--model", help="A catalogue name or a model folder.")],
    holdout: Annotated[Path, typer.Option("--holdout", help="JSONL of messages, answer, optional leaf.")],
    out: Annotated[Path, typer.Option("--out", help="Where the task goes.")],
    adapter: Annotated[Path | None, typer.Option("--adapter", help="An adapter folder, or a training's --out.")] = None,
    name: Annotated[str, typer.Option("--name", help="Of the task.")] = "holdout",
    max_tokens: Annotated[int, typer.Option("--max-tokens", help="Longest answer.")] = 128,
    batch_size: Annotated[int, typer.Option("--batch-size", help="Prompts answered at once.")] = 32,
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


def _file(out: Path, name: str, quant: str, *, several: bool) -> Path:
    if several:
        if out.suffix == ".gguf":
            raise InputError("several quantisations need a folder", field="--out")
        return out / f"{name}-{quant}.gguf"
    if out.suffix != ".gguf" or out.is_dir():
        raise InputError("should be a file that ends with .gguf", field="--out")
    return out


def _record(file: Path, proof: dict[str, Any], model: str, holdout: Any) -> None:
    """What was found, beside the file; it may be handed on with it, so it names no local path."""
    from distill.io import write_bytes

    about = {"name": holdout.name, "digest": holdout.digest, "items": len(holdout.items)} if holdout else None
    facts = {**proof, "file": file.name, "model": model, "holdout": about}
    write_bytes(file.with_name(f"{file.name}.json"), orjson.dumps(facts, option=orjson.OPT_INDENT_2))


def _unproved(exported: Any) -> dict[str, Any]:
    from distill.release.proof import Proof

    return {**Proof(exported, {}, [], {}, None).as_json(), "passed": None}


def _table(proofs: list[dict[str, Any]]) -> Table:
    figures = [name for name in ("tokenisation", "template", "greedy") if name in proofs[0]]
    metrics = list(proofs[0]["metrics"])
    table = Table("quant", "MB", *figures, *metrics)
    for proof in proofs:
        values = [f"{proof[name]:.3f}" for name in figures] + [f"{proof['metrics'][name]:.3f}" for name in metrics]
        table.add_row(proof["quant"], f"{proof['bytes'] / 1e6:,.0f}", *values)
    return table
