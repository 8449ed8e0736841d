"""`distill train`: train a student on a file of rows, or on the dataset of a run."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable, Generator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

import typer
from rich.text import Text

from distill.cli.console import err, find_recipe, print_json, safe
from distill.errors import InputError

if TYPE_CHECKING:
    from distill.recipe import Recipe, TrainConfig
    from distill.train import Progress, TrainResult

__all__ = ["find_run_dir", "needed", "student_model", "student_name", "train", "train_run"]

T = TypeVar("T")

_LINE_EVERY = 10.0


def train(
    recipe: Annotated[
        str | None, typer.Argument(help="A recipe with a `train:` section; its run's dataset is trained on.")
    ] = None,
    run: Annotated[
        str | None, typer.Option("--run", help="With RECIPE: the run, by path or name; else the latest.")
    ] = None,
    data: Annotated[
        Path | None, typer.Option("--data", help="Rows: a .jsonl or .parquet file, or a folder with train.jsonl.")
    ] = None,
    validation: Annotated[Path | None, typer.Option("--validation", help="Rows on which the loss is watched.")] = None,
    model: Annotated[
        str | None, typer.Option("--model", help="The student: a catalogue name or a model folder.")
    ] = None,
    settings: Annotated[
        str | None, typer.Option("--recipe", help="Training recipe: a file, or a name in train/ (sft-lora, sft-qlora).")
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", help="Where the result goes.")] = None,
    method: Annotated[Literal["sft"], typer.Option("--method", help="Training method.")] = "sft",
    seed: Annotated[int | None, typer.Option("--seed", help="Decides first weights and order of rows.")] = None,
    epochs: Annotated[float | None, typer.Option("--epochs", help="Over the recipe's.")] = None,
    max_steps: Annotated[int | None, typer.Option("--max-steps", help="Over the recipe's.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Discard another training in --out.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")] = False,
) -> None:
    """Train a student: LoRA, QLoRA or all weights.

    The same command again continues an interrupted training.
    """
    del method  # one so far; the option says so to whoever asks for another
    given: dict[str, Any] = {"epochs": epochs, "max_steps": max_steps}
    if recipe is not None:
        if data is not None:
            raise InputError("takes its rows from a run", field="RECIPE", hint="leave out --data, or leave out RECIPE")
        from distill.recipe import load_recipe

        loaded = load_recipe(find_recipe(recipe))
        if loaded.train is None:
            raise InputError("the recipe has no `train:` section", field=loaded.name)
        given["model"] = model
        facts = train_run(
            loaded, find_run_dir(loaded, run), quiet=quiet, out=out, seed=seed, overwrite=overwrite, over=given
        )
    else:
        config = _config(settings or "sft-lora", {**given, "model": needed(model, "--model")})
        rows, target = needed(data, "--data"), needed(out, "--out")
        facts = _train(config, rows, validation, target, seed or 0, overwrite=overwrite, quiet=quiet).as_json()
    if json:
        print_json(facts)


def train_run(
    recipe: Recipe,
    run: Path,
    *,
    quiet: bool,
    out: Path | None = None,
    seed: int | None = None,
    overwrite: bool = False,
    over: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Train the recipe's student on `run/dataset`, into `run/train/<student>`; returns paths and figures."""
    if recipe.train is None:
        raise InputError("the recipe has no `train:` section", field=recipe.name)
    from distill.recipe import TrainConfig, parse

    changes = {key: value for key, value in (over or {}).items() if value is not None}
    config: TrainConfig = parse(TrainConfig, {**recipe.train.model_dump(), **changes})
    if "model" not in changes:
        config = config.model_copy(update={"model": student_model(recipe)})
    target = out or run / "train" / student_name(config)
    dataset = run / "dataset"
    leaks = _leaks(recipe, dataset)
    first = recipe.seed if seed is None else seed
    result = _train(config, dataset, None, target, first, overwrite=overwrite, quiet=quiet)
    return {**result.as_json(), "holdout_leaks": leaks}


def needed(value: T | None, option: str) -> T:
    """The value of an option that only a recipe could replace."""
    if value is None:
        raise InputError("this option is needed", field=option, hint="or name a recipe")
    return value


def student_model(recipe: Recipe) -> str:
    """The recipe's student: a catalogue name, or a folder relative to the recipe."""
    assert recipe.train is not None  # noqa: S101 - callers have looked
    relative = recipe.folder / Path(recipe.train.model).expanduser()
    return str(relative) if relative.is_dir() else recipe.train.model


def _leaks(recipe: Recipe, dataset: Path) -> int | None:
    """Holdout items that the training rows ask; None without a holdout."""
    if recipe.evaluate is None:
        return None
    from distill.assets import find
    from distill.evaluate import find_leaks, read_holdout
    from distill.train import TrainData

    holdout = read_holdout(find("data", recipe.evaluate.holdout, base=recipe.folder))
    leaks = find_leaks(holdout, TrainData.read(dataset).train)
    if leaks:
        first = leaks[0]
        err.print(
            f"[yellow]{len(leaks)} holdout items stand in the training rows[/], {first.id} in {first.where} first"
        )
    return len(leaks)


def student_name(config: TrainConfig) -> str:
    """What a trained student is called inside a run."""
    return f"{Path(config.model).name}-{config.adapter}"


def find_run_dir(recipe: Recipe, given: str | None) -> Path:
    """The run that `--run` means: a path, a name under the workspace's `runs/`, or the recipe's latest run.

    Raises:
        InputError: there is none.
    """
    from distill.assets import workspace_of

    runs = workspace_of(recipe.folder) / "runs"
    if given is not None:
        for folder in (Path(given), runs / given):
            if folder.is_dir():
                return folder
        raise InputError(f"no such run: {given}", hint=f"looked in {runs}")
    found = [path for path in runs.glob(f"{recipe.name}-*") if path.name.removeprefix(f"{recipe.name}-").isdigit()]
    dated = [(path.stat().st_mtime, path.parent) for folder in found if (path := folder / "run.json").is_file()]
    if not dated:
        raise InputError(f"the recipe {recipe.name} has no run yet", hint=f"`distill generate {recipe.name}` makes one")
    return max(dated)[1]


def _config(settings: str, over: dict[str, Any]) -> TrainConfig:
    from distill.assets import find
    from distill.io.yamlfile import read_yaml
    from distill.recipe import TrainConfig, parse

    path = Path(settings) if Path(settings).is_file() else find("train", settings, base=Path.cwd())
    value, lines = read_yaml(path)
    if not isinstance(value, dict):
        raise InputError("should hold the keys of a `train:` section", path=path)
    return parse(
        TrainConfig, {**value, **{key: item for key, item in over.items() if item is not None}}, path=path, lines=lines
    )


def _train(
    config: TrainConfig,
    data: Path,
    validation: Path | None,
    out: Path,
    seed: int,
    *,
    overwrite: bool,
    quiet: bool,
) -> TrainResult:
    from distill.train import TrainData
    from distill.train import train as train_student

    rows = TrainData.read(data, validation)
    err.print(f"training {config.adapter} on {len(rows.train)} rows, {len(rows.validation)} watched", markup=False)
    with _stopping() as stop:
        result = train_student(config, rows, out, seed=seed, progress=_shown(quiet), stop=stop, overwrite=overwrite)
    facts = result.facts
    err.print(
        f"{facts['steps']} steps, loss {facts['loss_first']} to {facts['loss_last']}, "
        f"{facts['tokens_per_second']:.0f} tokens/s, {facts['train_seconds']:.0f} s, "
        f"peak {facts['peak_memory_bytes'] / 1e9:.1f} GB, {facts['dtype']}"
    )
    if facts["dropped_long"]:
        left_out = f"{facts['dropped_long']} rows longer than {config.max_length} tokens were left out"
        err.print(Text(left_out, style="yellow"))
    err.print("one example, trained tokens between ⟦ and ⟧:")
    err.print(safe(facts["example"]["text"], limit=1200))
    err.print(safe(str(result.adapter or result.model)))
    return result


def _shown(quiet: bool) -> Callable[[Progress], None]:
    """Shows each update: a bar on a terminal, else a line every ten seconds."""
    import time

    last = 0.0

    def show(p: Progress) -> None:
        nonlocal last
        now = time.monotonic()
        if quiet or (not err.is_terminal and now - last < _LINE_EVERY and p.step < p.steps):
            return
        last = now
        left = f"{p.seconds_left:.0f} s left" if p.seconds_left is not None else ""
        watched = f"  validation {p.validation_loss:.3f}" if p.validation_loss is not None else ""
        text = f"step {p.step}/{p.steps}  loss {p.loss or 0:.3f}{watched}  {p.tokens_per_second:.0f} tokens/s  {left}"
        if err.is_terminal:
            err.print(f"\r\x1b[2K{text}", end="" if p.step < p.steps else "\n", markup=False)
        else:
            err.print(text, markup=False)

    return show


@contextlib.contextmanager
def _stopping() -> Generator[Callable[[], bool]]:
    """The first SIGINT or SIGTERM saves and stops after the current update, the second leaves at once."""
    seen = 0

    def count(*_: object) -> None:
        nonlocal seen
        seen += 1
        if seen > 1:
            raise KeyboardInterrupt
        err.print("stopping after this step; what is trained is saved (again to leave at once)")

    before = {number: signal.signal(number, count) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: seen > 0
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
