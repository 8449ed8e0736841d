"""`distill eval`: score a student (and its base, and a teacher) on a holdout."""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from distill.cli.console import err, find_recipe, print_json, run_loop
from distill.cli.train import find_run_dir, needed, student_model, student_name
from distill.errors import GateFailed, InputError

if TYPE_CHECKING:
    from distill.evaluate import Scorecard, System, TeacherSystem
    from distill.recipe import EvaluateConfig, Recipe

__all__ = ["evaluate", "evaluate_run", "score_table"]


def evaluate(
    recipe: Annotated[
        str | None,
        typer.Argument(help="A recipe with an `evaluate:` section: its base, student and teacher are scored."),
    ] = None,
    run: Annotated[
        str | None, typer.Option("--run", help="With RECIPE: the run, by path or name; else the latest.")
    ] = None,
    model: Annotated[str | None, typer.Option("--model", help="A catalogue name or a model folder.")] = None,
    adapter: Annotated[Path | None, typer.Option("--adapter", help="An adapter folder, or a training's --out.")] = None,
    holdout: Annotated[Path | None, typer.Option("--holdout", help="JSONL of messages, answer, optional leaf.")] = None,
    metric: Annotated[
        list[str] | None, typer.Option("--metric", help="json_valid, exact_match, accuracy:field=X, macro_f1:field=X.")
    ] = None,
    gate: Annotated[list[str] | None, typer.Option("--gate", help="Condition such as 'exact_match >= 0.8'.")] = None,
    out: Annotated[Path | None, typer.Option("--out", help="Where scorecard and predictions go.")] = None,
    base: Annotated[bool, typer.Option("--base", help="With --adapter: score the base without it too.")] = False,
    data: Annotated[
        Path | None, typer.Option("--data", help="Training rows; the holdout is looked for in them.")
    ] = None,
    schema: Annotated[Path | None, typer.Option("--schema", help="JSON Schema that json_valid asks for.")] = None,
    max_tokens: Annotated[int, typer.Option("--max-tokens", help="Longest answer.")] = 128,
    batch_size: Annotated[int, typer.Option("--batch-size", help="Prompts answered at once.")] = 32,
    latency_items: Annotated[int, typer.Option("--latency-items", help="Prompts answered singly; 0: none.")] = 8,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")] = False,
) -> None:
    """Score students and teachers on a holdout.

    Saved predictions are counted again without answering again. Exit code 4 where a gate fails.
    """
    if recipe is not None:
        from distill.recipe import load_recipe

        loaded = load_recipe(find_recipe(recipe))
        if loaded.evaluate is None:
            raise InputError("the recipe has no `evaluate:` section", field=loaded.name)
        result, _ = evaluate_run(loaded, find_run_dir(loaded, run), quiet=quiet, out=out)
    else:
        model, holdout, out = needed(model, "--model"), needed(holdout, "--holdout"), needed(out, "--out")
        from distill.evaluate import Student, parse_metric
        from distill.train import read_rows

        started = time.monotonic()
        limits: dict[str, Any] = {"max_tokens": max_tokens, "batch_size": batch_size, "latency_items": latency_items}
        systems: list[System] = []
        if adapter is None or base:
            systems.append(Student(model, None, "base" if base else "model", **limits))
        if adapter is not None:
            systems.append(Student(model, adapter, **limits))
        metrics = [parse_metric(text, schema=schema) for text in metric or ("json_valid", "exact_match")]
        card = run_loop(
            _score(
                systems,
                holdout,
                metrics,
                out,
                gates=gate or (),
                training_rows=list(read_rows(data)) if data is not None else None,
                progress=_progress(quiet),
            )
        )
        result = _result(card, out, started)
    if not quiet:
        err.print(score_table(result))
        _remarks(result)
    if json:
        print_json(result)
    failed = [gate for gate in result["gates"] if not gate["passed"]]
    if failed:
        raise GateFailed(
            "; ".join(f"{gate['gate']} does not hold: {gate['value']:.4f}" for gate in failed),
            hint=f"the figures are in {result['scorecard']}",
        )


def evaluate_run(recipe: Recipe, run: Path, *, quiet: bool, out: Path | None = None) -> tuple[dict[str, Any], int]:
    """Score base, student and teacher of a run into `run/eval`; returns the figures and 4 where a gate failed."""
    from distill.assets import find
    from distill.evaluate import Student, parse_metric
    from distill.train import read_rows

    config = recipe.evaluate
    if config is None:
        raise InputError("the recipe has no `evaluate:` section", field=recipe.name)
    started = time.monotonic()
    target = out or run / "eval"
    schema = _asset(recipe, config.schema_file) if config.schema_file else None
    metrics = [parse_metric(text, schema=schema, folder=recipe.folder) for text in config.metrics]
    limits: dict[str, Any] = {
        "max_tokens": config.max_tokens,
        "batch_size": config.batch_size,
        "latency_items": config.latency_items,
    }
    systems: list[System] = []
    if recipe.train is not None:
        model = student_model(recipe)
        folder = run / "train" / student_name(recipe.train)
        if not (folder / "train.json").is_file():
            raise InputError("the student is not trained yet", path=folder, hint=f"`distill train {recipe.name}`")
        if config.base:
            systems.append(Student(model, None, "base", **limits))
        full = recipe.train.adapter == "full"
        student = Student(str(folder / "model"), None, **limits) if full else Student(model, folder, **limits)
        systems.append(student)
    rows = run / "dataset" / "train.jsonl"

    async def work() -> Scorecard:
        async with _teacher(recipe, config, run, schema) as teacher:
            return await _score(
                [*systems, *([teacher] if teacher is not None else [])],
                find("data", config.holdout, base=recipe.folder),
                metrics,
                target,
                gates=config.gates,
                training_rows=list(read_rows(rows)) if rows.is_file() else None,
                progress=_progress(quiet),
            )

    card = run_loop(work())
    return _result(card, target, started), 0 if card.passed else 4


def score_table(card: dict[str, Any]) -> Table:
    """The systems of a scorecard (as JSON values), one a line."""
    names = list(dict.fromkeys(name for system in card["systems"].values() for name in system["metrics"]))
    table = Table("system", *names, "p50 ms", "p95 ms", "tokens/s", title=f"{card['n']} items, 95 % intervals")
    for name, system in card["systems"].items():
        cells = [
            f"{figure['value']:.3f} [{figure['low']:.3f}, {figure['high']:.3f}]"
            for figure in (system["metrics"][metric] for metric in names)
        ]
        latency, speed = system["latency"], system["tokens_per_second"]
        times = [f"{latency[key] * 1000:,.0f}" if latency else "–" for key in ("p50", "p95")]
        table.add_row(name, *cells, *times, f"{speed:,.0f}" if speed else "–")
    return table


async def _score(
    systems: Sequence[System], holdout: Path, metrics: Sequence[Any], out: Path, **options: Any
) -> Scorecard:
    from distill.evaluate import evaluate as score
    from distill.evaluate import read_holdout

    return await score(systems, read_holdout(holdout), metrics, out, **options)


@contextlib.asynccontextmanager
async def _teacher(
    recipe: Recipe, config: EvaluateConfig, run: Path, schema: Path | None
) -> AsyncGenerator[TeacherSystem | None]:
    """The teacher behind the gateway, with the answer store of the workspace: it is asked once, ever."""
    if config.teacher is None:
        yield None
        return
    from distill.assets import workspace_of
    from distill.evaluate import TeacherSystem
    from distill.gateway import Gateway, SqliteStore
    from distill.io import loads
    from distill.planning import Slot, Topic
    from distill.prompting import PromptBook
    from distill.teachers import make_teacher

    shape = loads(schema.read_bytes()) if schema is not None else None  # noqa: ASYNC240
    system = None
    if config.teacher_system is not None:
        # A prompt file speaks of a slot; instructions for a holdout have none, so an empty one stands in.
        prompt = PromptBook(recipe.folder).get(config.teacher_system)
        system = prompt.render(Slot("eval-0", 0, Topic(("eval",))))
    chosen = recipe.teachers[config.teacher]
    store = SqliteStore.open(workspace_of(recipe.folder) / ".distill" / "answers.sqlite")
    try:
        teachers = {config.teacher: make_teacher(config.teacher, chosen)}
        async with Gateway(teachers, recipe.teachers, store, run=f"{run.name}/eval", budget=recipe.budget) as gateway:
            yield TeacherSystem(
                config.teacher,
                gateway.ask,
                model=chosen.model,
                system=system,
                max_tokens=config.max_tokens,
                schema=shape,
                window=chosen.max_concurrency,
            )
    finally:
        store.close()


def _asset(recipe: Recipe, name: str) -> Path:
    from distill.assets import find

    return find("prompts", name, base=recipe.folder)


def _result(card: Scorecard, out: Path, started: float) -> dict[str, Any]:
    """The scorecard with paths, the subject's plain values, seconds and peak memory."""
    from distill.train.memory import peak_memory

    subject = card.systems[card.subject]
    return {
        "out": str(out),
        "scorecard": str(out / "scorecard.json"),
        "predictions": str(out / "predictions.jsonl"),
        "metrics": {name: figure.value for name, figure in subject.metrics.items()},
        "reused": all(system.reused for system in card.systems.values()),
        **card.as_json(),
        "passed": card.passed,
        "seconds": round(time.monotonic() - started, 1),
        "peak_memory_bytes": peak_memory(),
    }


def _remarks(result: dict[str, Any]) -> None:
    for d in result["differences"]:
        err.print(
            f"{d['system']} - {d['against']}  {d['metric']}  {d['value']:+.3f} [{d['low']:+.3f}, {d['high']:+.3f}]"
            f"  p = {d['p_value']:.2g} ({d['test']})",
            markup=False,
        )
    if result["leaks"]:
        warning = Text(f"{len(result['leaks'])} holdout items stand in the training rows", style="yellow")
        err.print(warning + Text(": see scorecard.json"))
    for gate in result["gates"]:
        held = Text("holds", style="green") if gate["passed"] else Text("fails", style="red")
        err.print(f"gate {gate['gate']}: {gate['value']:.4f}", held)


def _progress(quiet: bool) -> Callable[[str, int, int], None]:
    last = 0.0

    def show(system: str, done: int, total: int) -> None:
        nonlocal last
        now = time.monotonic()
        if quiet or (0 < done < total and now - last < 5.0):
            return
        last = now
        err.print(f"{system}: {done}/{total} answered", markup=False)

    return show
