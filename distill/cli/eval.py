"""`distill eval`: score students, teachers and endpoints on a holdout."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from distill.cli.console import err, print_json, run_loop, safe
from distill.cli.loading import load
from distill.cli.proving import baseline_in, freeze_holdout, open_desk
from distill.cli.scores import score_table, show_remarks, show_value
from distill.cli.train import find_run_dir, needed, student_model, student_name
from distill.errors import GateFailed, InputError

if TYPE_CHECKING:
    from distill.cli.systems import Answering
    from distill.evaluate import Scorecard, System
    from distill.evaluate.systems import SystemSpec
    from distill.recipe import Recipe

__all__ = ["Further", "evaluate", "evaluate_run", "score_table"]

_METRICS = ("json_valid", "exact_match")


@dataclass(frozen=True)
class Further:
    """What the options add to the systems and figures of a recipe."""

    systems: tuple[SystemSpec, ...] = ()
    subject: str | None = None
    reference: str | None = None
    general: str | None = None
    parity: Path | None = None
    usd_per_hour: float | None = None
    paying: dict[str, Any] = field(default_factory=dict[str, Any])
    """Key, price and budget of endpoints."""
    against: str | None = None
    allow_code: bool = False
    new_holdout: bool = False


def evaluate(
    recipe: Annotated[
        str | None,
        typer.Argument(help="A recipe with an `evaluate:` section: its base, student and teacher are scored."),
    ] = None,
    run: Annotated[
        str | None, typer.Option("--run", help="With RECIPE: the run, by path or name; else the latest.")
    ] = None,
    model: Annotated[str | None, typer.Option("--model", help="A name or a folder; else the adapter's base.")] = None,
    adapter: Annotated[Path | None, typer.Option("--adapter", help="An adapter folder, or a training's --out.")] = None,
    system: Annotated[
        list[str] | None,
        typer.Option(
            "--system",
            help="Score this too, again and again: NAME=WHAT, a model, adapter, .gguf file, run:ID, release:NAME "
            "or http://HOST/v1#MODEL.",
        ),
    ] = None,
    endpoint: Annotated[
        str | None, typer.Option("--endpoint", help="Score a model behind an OpenAI-compatible endpoint: its URL.")
    ] = None,
    endpoint_model: Annotated[
        str | None, typer.Option("--endpoint-model", help="The model's name at the endpoint.")
    ] = None,
    endpoint_key: Annotated[
        str | None, typer.Option("--endpoint-key", help="The variable that holds its key: '${NAME}'.")
    ] = None,
    endpoint_price: Annotated[
        str | None, typer.Option("--endpoint-price", help="INPUT/OUTPUT in USD per million tokens.")
    ] = None,
    max_usd: Annotated[float | None, typer.Option("--max-usd", min=0, help="The most that endpoints may cost.")] = None,
    parity: Annotated[
        Path | None,
        typer.Option("--parity", help="An earlier --out (or OUT#SYSTEM): are the subject's answers those?"),
    ] = None,
    holdout: Annotated[Path | None, typer.Option("--holdout", help="JSONL of messages, answer, optional leaf.")] = None,
    metric: Annotated[
        list[str] | None,
        typer.Option("--metric", help="Such as exact_match or macro_f1:field=X; docs/evaluation.md lists all."),
    ] = None,
    gate: Annotated[list[str] | None, typer.Option("--gate", help="Condition such as 'exact_match >= 0.8'.")] = None,
    subject: Annotated[
        str | None, typer.Option("--subject", help="The system that gates speak of: student, else the last.")
    ] = None,
    reference: Annotated[
        str | None, typer.Option("--reference", help="The system whose score is to be kept: else the teacher.")
    ] = None,
    against: Annotated[
        str | None, typer.Option("--against", help="The system that differences are measured from: else the first.")
    ] = None,
    general: Annotated[
        str | None, typer.Option("--general", help="Questions for what was forgotten: general/questions is shipped.")
    ] = None,
    machine_price: Annotated[
        float | None, typer.Option("--machine-price", min=0, help="USD an hour of this machine: what answers cost.")
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", help="Where scorecard and predictions go.")] = None,
    base: Annotated[bool, typer.Option("--base", help="With --adapter: score the base without it too.")] = False,
    data: Annotated[
        Path | None, typer.Option("--data", help="Training rows; the holdout is looked for in them.")
    ] = None,
    allow_code: Annotated[
        bool, typer.Option("--allow-code", help="Run the programs that pass_at_k draws, in a sandbox.")
    ] = False,
    new_holdout: Annotated[
        bool,
        typer.Option("--new-holdout-version", help="With RECIPE: a changed holdout is meant; scores start anew."),
    ] = False,
    schema: Annotated[Path | None, typer.Option("--schema", help="JSON Schema that json_valid asks for.")] = None,
    max_tokens: Annotated[int, typer.Option("--max-tokens", min=1, help="Longest answer.")] = 128,
    batch_size: Annotated[int, typer.Option("--batch-size", min=1, help="Prompts answered at once.")] = 32,
    latency_items: Annotated[int, typer.Option("--latency-items", min=0, help="Prompts answered singly; 0: none.")] = 8,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")] = False,
) -> None:
    """Score models, adapters, endpoints and teachers on a holdout.

    Saved predictions are counted again without answering again. Exit code 4 where a gate fails.
    """
    further = Further(
        (*_specs(system or ()), *_endpoint(endpoint, endpoint_model)),
        subject,
        reference,
        general,
        parity,
        machine_price,
        _paying(endpoint_key, endpoint_price, max_usd),
        against,
        allow_code,
        new_holdout,
    )
    if recipe is not None:
        loaded = load(recipe)
        if loaded.evaluate is None:
            raise InputError("the recipe has no `evaluate:` section", field=loaded.name)
        result, _ = evaluate_run(loaded, find_run_dir(loaded, run), quiet=quiet, out=out, further=further)
    else:
        from distill.cli.systems import Answering
        from distill.evaluate import Student, parse_metric
        from distill.train import read_rows
        from distill.train.bases import start_from

        if adapter is not None and model is None:
            model = str(start_from(adapter).base.folder)
        if not further.systems:
            model = needed(model, "--model")
        holdout, out = needed(holdout, "--holdout"), needed(out, "--out")
        started = time.monotonic()
        how = Answering(max_tokens, batch_size, latency_items, Path.cwd(), _payer(out), **further.paying)
        own: list[System] = []
        if model is not None and (adapter is None or base):
            own.append(Student(model, None, "base" if base else "model", **how.limits))
        if model is not None and adapter is not None:
            own.append(Student(model, adapter, **how.limits))
        metrics = [parse_metric(text, schema=schema, allow_code=allow_code) for text in metric or _METRICS]
        rows = list(read_rows(data)) if data is not None else None
        options: dict[str, Any] = {**_options(further, Path.cwd(), schema), "gates": gate or (), "training_rows": rows}
        card = run_loop(_with_systems(own, how, further, holdout, metrics, out, quiet=quiet, **options))
        result = _result(card, out, started)
    if not quiet:
        err.print(score_table(result))
        show_remarks(result)
    if json:
        print_json(result)
    failed = [gate for gate in result["gates"] if not gate["passed"]]
    if failed:
        raise GateFailed(
            "; ".join(f"{gate['gate']} does not hold: {show_value(gate['value'])}" for gate in failed),
            hint=f"the figures are in {result['scorecard']}",
        )


def evaluate_run(
    recipe: Recipe, run: Path, *, quiet: bool, out: Path | None = None, further: Further | None = None
) -> tuple[dict[str, Any], int]:
    """Score base, student and teacher of a run into `run/eval`; returns the figures and 4 where a gate failed."""
    from distill.assets import find
    from distill.cli.systems import Answering, open_teacher
    from distill.evaluate import Student, parse_metric
    from distill.evaluate.unsafe import Unsafe
    from distill.train import read_rows

    config = recipe.evaluate
    if config is None:
        raise InputError("the recipe has no `evaluate:` section", field=recipe.name)
    further = further or Further()
    started = time.monotonic()
    target = out or run / "eval"
    schema = find("prompts", config.schema_file, base=recipe.folder) if config.schema_file else None
    metrics = [
        parse_metric(text, schema=schema, folder=recipe.folder, allow_code=further.allow_code)
        for text in config.metrics
    ]
    frozen = freeze_holdout(recipe, new_version=further.new_holdout)
    how = Answering(
        config.max_tokens,
        config.batch_size,
        config.latency_items,
        recipe.folder,
        _payer(target),
        store=recipe.store,
        **further.paying,
    )
    systems: list[System] = []
    if recipe.train is not None:
        model = student_model(recipe)
        folder = run / "train" / student_name(recipe.train)
        if not (folder / "train.json").is_file():
            raise InputError("the student is not trained yet", path=folder, hint=f"`distill train {recipe.name}`")
        if config.base:
            systems.append(Student(model, None, "base", **how.limits))
        full = recipe.train.adapter == "full"
        student = Student(str(folder / "model"), None, **how.limits) if full else Student(model, folder, **how.limits)
        systems.append(student)
    rows = run / "dataset" / "train.jsonl"
    named = [f"{name}={what}" for name, what in config.systems.items()]
    chosen = Further(
        (*_specs(named), *further.systems),
        further.subject,
        further.reference,
        further.general or config.general,
        further.parity,
        config.machine_usd_per_hour if further.usd_per_hour is None else further.usd_per_hour,
        against=further.against or config.against,
    )
    options: dict[str, Any] = {
        **_options(chosen, recipe.folder, schema),
        "gates": config.gates,
        "unsafe": Unsafe(config.unsafe, recipe.folder),
        "holdout_version": frozen.version if frozen is not None else None,
        "training_rows": list(read_rows(rows)) if rows.is_file() else None,
    }
    holdout = find("data", config.holdout, base=recipe.folder)

    async def work() -> Scorecard:
        async with open_teacher(recipe, config, run) as teacher, open_desk(recipe, metrics, run) as desk:
            last = [teacher] if teacher is not None else []
            told = {**options, "desk": desk}
            return await _with_systems(systems, how, chosen, holdout, metrics, target, last, quiet=quiet, **told)

    card = run_loop(work())
    return _result(card, target, started), 0 if card.passed else 4


async def _with_systems(
    first: Sequence[System],
    how: Answering,
    further: Further,
    holdout: Path,
    metrics: Sequence[Any],
    out: Path,
    last: Sequence[System] = (),
    *,
    quiet: bool,
    **options: Any,
) -> Scorecard:
    from distill.cli.systems import open_systems
    from distill.evaluate import evaluate as score
    from distill.evaluate import read_holdout

    items = read_holdout(holdout)
    async with open_systems(further.systems, how) as more:
        return await score([*first, *more, *last], items, metrics, out, progress=_progress(quiet), **options)


def _options(further: Further, folder: Path, schema: Path | None) -> dict[str, Any]:
    """What `distill.evaluate.evaluate` is told besides systems, metrics and gates."""
    from distill.assets import find
    from distill.evaluate import read_holdout
    from distill.evaluate.metrics import read_schema
    from distill.evaluate.parity import read_earlier

    measured, _, system = str(further.parity).partition("#")
    return {
        "subject": further.subject,
        "reference": further.reference,
        "schema": read_schema(schema) if schema is not None else None,
        "general": read_holdout(find("data", further.general, base=folder)) if further.general else None,
        "earlier": read_earlier(Path(measured), system or None) if further.parity is not None else None,
        "usd_per_hour": further.usd_per_hour,
        "against": further.against,
        "baseline": baseline_in(folder),
    }


def _specs(texts: Sequence[str]) -> list[SystemSpec]:
    from distill.evaluate.systems import parse_system

    return [parse_system(text) for text in texts]


def _endpoint(url: str | None, model: str | None) -> list[SystemSpec]:
    if url is None and model is None:
        return []
    if url is None or model is None:
        raise InputError("an endpoint needs its address and the model's name", field="--endpoint --endpoint-model")
    from distill.evaluate.systems import SystemSpec

    return [SystemSpec("endpoint", "endpoint", url, model)]


def _paying(key: str | None, price: str | None, max_usd: float | None) -> dict[str, Any]:
    from decimal import Decimal

    from pydantic import SecretStr

    from distill.evaluate.endpoint import parse_price

    return {
        "key": SecretStr(key) if key is not None else None,
        "price": parse_price(price) if price is not None else None,
        "budget_usd": Decimal(str(max_usd)) if max_usd is not None else None,
    }


def _payer(out: Path) -> str:
    """The name under which an evaluation pays: a budget holds over all that write the same folder."""
    from distill.io import digest

    return f"eval/{digest(str(out.resolve()))[:16]}"


def _result(card: Scorecard, out: Path, started: float) -> dict[str, Any]:
    """The scorecard with paths, the subject's plain values, seconds and peak memory."""
    from distill.studio.report import write_evaluation
    from distill.train.memory import peak_memory

    subject = card.systems[card.subject]
    return {
        "out": str(out),
        "scorecard": str(out / "scorecard.json"),
        "predictions": str(out / "predictions.jsonl"),
        "report": str(write_evaluation(out)),
        "metrics": {name: figure.value for name, figure in subject.metrics.items()},
        "reused": all(system.reused for system in card.systems.values()),
        **card.as_json(),
        "passed": card.passed,
        "seconds": round(time.monotonic() - started, 1),
        "peak_memory_bytes": peak_memory(),
    }


def _progress(quiet: bool) -> Callable[[str, int, int], None]:
    last = 0.0

    def show(system: str, done: int, total: int) -> None:
        nonlocal last
        now = time.monotonic()
        if quiet or (0 < done < total and now - last < 5.0):
            return
        last = now
        err.print(safe(f"{system}: {done}/{total} answered"))

    return show
