"""`distill train`: train a student on a file of rows, or on the dataset of a run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar, cast

import typer
from rich.text import Text

from distill.cli.console import err, print_json
from distill.cli.loading import load
from distill.cli.proving import freeze_holdout
from distill.cli.training import Job, Mix, one_voice, run_training
from distill.errors import InputError

if TYPE_CHECKING:
    from distill.recipe import Recipe, TrainConfig

__all__ = ["find_run_dir", "needed", "student_model", "student_name", "train", "train_run"]

T = TypeVar("T")

_SETTINGS = {"sft": "sft-lora", **{name: name for name in ("dpo", "kto", "orpo", "distill", "on-policy")}}
"""The training recipe of a method, where none is named."""


@one_voice()
def train(
    recipe: Annotated[
        str | None, typer.Argument(help="A recipe with a `train:` section; its run's dataset is trained on.")
    ] = None,
    run: Annotated[
        str | None, typer.Option("--run", help="With RECIPE: the run, by path or name; else the latest.")
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(
            "--data",
            help="Rows: a .jsonl or .parquet file, a folder with train.jsonl, or hub:OWNER/NAME[@CONFIG][:SPLIT].",
        ),
    ] = None,
    validation: Annotated[Path | None, typer.Option("--validation", help="Rows on which the loss is watched.")] = None,
    model: Annotated[
        str | None, typer.Option("--model", help="The student: a catalogue name or a model folder.")
    ] = None,
    settings: Annotated[
        str | None,
        typer.Option("--recipe", help="Training recipe: a file, or a name in train/ (sft-lora, sft-qlora, dpo)."),
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", help="Where the result goes.")] = None,
    method: Annotated[
        Literal["sft", "dpo", "kto", "orpo", "distill", "on-policy"] | None,
        typer.Option("--method", help="What is learned from: answers, pairs, marks, a teacher; else the recipe's."),
    ] = None,
    adapter: Annotated[
        Path | None, typer.Option("--adapter", help="With dpo, kto, orpo: the adapter to go on from, the reference.")
    ] = None,
    teacher: Annotated[
        str | None, typer.Option("--teacher", help="With distill and on-policy: a local model of the same vocabulary.")
    ] = None,
    mix: Annotated[
        Path | None, typer.Option("--mix", help="With --data: general rows among the others, against forgetting.")
    ] = None,
    mix_share: Annotated[
        float, typer.Option("--mix-share", min=0.01, max=0.9, help="Their share of all training rows.")
    ] = 0.1,
    against: Annotated[
        list[Path] | None,
        typer.Option(
            "--against",
            metavar="FILE",
            help="With --data: a holdout. Its items in the rows are counted; rows of --mix that hold one stay out.",
        ),
    ] = None,
    seed: Annotated[
        int | None, typer.Option("--seed", min=0, max=2**32 - 1, help="Of first weights and order of rows.")
    ] = None,
    epochs: Annotated[float | None, typer.Option("--epochs", help="Over the recipe's.")] = None,
    max_steps: Annotated[int | None, typer.Option("--max-steps", help="Over the recipe's.")] = None,
    watch: Annotated[
        str | None, typer.Option("--watch", help="Score answers to the validation rows while training: a metric.")
    ] = None,
    plan: Annotated[bool, typer.Option("--plan", help="Memory and time it would take; trains nothing.")] = False,
    seeds: Annotated[
        int, typer.Option("--seeds", min=1, help="Train so often, from --seed on; report mean and spread.")
    ] = 1,
    new_holdout: Annotated[
        bool,
        typer.Option("--new-holdout-version", help="A changed holdout is meant: its scores start a new version."),
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Discard another training in --out.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")] = False,
) -> None:
    """Train a student: LoRA, QLoRA or all weights, on answers or on preferences.

    The same command again continues an interrupted training.
    """
    given: dict[str, Any] = {"epochs": epochs, "max_steps": max_steps, "method": method}
    given["watch"] = {"metric": watch} if watch is not None else None
    given["distillation"] = {"teacher": teacher} if teacher is not None else None
    leaks, loaded, told = None, None, recipe is not None or bool(against)
    if recipe is not None:
        if data is not None:
            raise InputError("takes its rows from a run", field="RECIPE", hint="leave out --data, or leave out RECIPE")
        if mix is not None:
            raise InputError("goes with --data", field="--mix", hint="in a recipe, `dataset.mix` does this")
        if against:
            raise InputError("goes with --data", field="--against", hint="a recipe's holdout is looked for by itself")
        loaded = load(recipe)
        if loaded.train is None:
            raise InputError("the recipe has no `train:` section", field=loaded.name)
        given["model"] = model
        folder = find_run_dir(loaded, run)
        job = _job_of_run(loaded, folder, out=out, seed=seed, over=given, adapter=adapter)
        leaks = _own_leaks(loaded, job)
    else:
        if adapter is None:
            model = needed(model, "--model")
        config = _config(settings or _SETTINGS[method or "sft"], {**given, "model": model or ""})
        target = Path() if plan else needed(out, "--out")
        job = Job(config, needed(data, "--data"), validation, target, seed or 0, adapter)
        if against and not plan:
            leaks = sum(_leaks(file, job.data, method=config.method) for file in against)
        if mix is not None:
            job = replace(job, mix=Mix(mix, mix_share, tuple(against or ())))
    _only_with_pairs(job)
    if loaded is not None and not plan:
        freeze_holdout(loaded, new_version=new_holdout)
    if plan:
        from distill.cli.training import plan_training

        facts = plan_training(job)
    elif seeds > 1:
        from distill.cli.seeds import train_seeds

        facts = train_seeds(job, seeds, overwrite=overwrite, quiet=quiet)
    else:
        facts = run_training(job, overwrite=overwrite, quiet=quiet).as_json()
    if told:
        facts["holdout_leaks"] = leaks
    if json and not err.quiet:
        print_json(facts)


def train_run(recipe: Recipe, run: Path, *, quiet: bool, new_holdout: bool = False) -> dict[str, Any]:
    """Train the recipe's student on `run/dataset`, into `run/train/<student>`; returns paths and figures."""
    freeze_holdout(recipe, new_version=new_holdout)
    job = _job_of_run(recipe, run)
    leaks = _own_leaks(recipe, job)
    return {**run_training(job, quiet=quiet).as_json(), "holdout_leaks": leaks}


def _job_of_run(
    recipe: Recipe,
    run: Path,
    *,
    out: Path | None = None,
    seed: int | None = None,
    over: dict[str, Any] | None = None,
    adapter: Path | None = None,
) -> Job:
    if recipe.train is None:
        raise InputError("the recipe has no `train:` section", field=recipe.name)
    from distill.recipe import TrainConfig, parse

    changes = {key: value for key, value in (over or {}).items() if value is not None}
    config: TrainConfig = parse(TrainConfig, _over(recipe.train.model_dump(), changes))
    if "model" not in changes:
        config = config.model_copy(update={"model": student_model(recipe)})
    if teacher := (config.distillation.teacher if "distillation" not in changes else None):
        beside = recipe.folder / Path(teacher).expanduser()
        if beside.is_dir():
            loss = config.distillation.model_copy(update={"teacher": str(beside)})
            config = config.model_copy(update={"distillation": loss})
    target = out or run / "train" / student_name(config)
    first = recipe.seed if seed is None else seed
    return Job(config, run / "dataset", None, target, first, adapter)


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


def _only_with_pairs(job: Job) -> None:
    if job.adapter is not None and job.config.method not in ("dpo", "kto", "orpo"):
        raise InputError("goes on from an adapter with --method dpo, kto or orpo", field="--adapter")
    if job.mix is not None and job.config.method != "sft":
        raise InputError("general rows are answers: they go with --method sft only", field="--mix")


def _own_leaks(recipe: Recipe, job: Job) -> int | None:
    """Items of the recipe's holdout that the training rows ask; None where it has none."""
    if recipe.evaluate is None:
        return None
    from distill.assets import find

    return _leaks(find("data", recipe.evaluate.holdout, base=recipe.folder), job.data, method=job.config.method)


def _leaks(file: Path, dataset: Path, *, method: str) -> int:
    """Items of the holdout in `file` that the training rows ask."""
    from distill.evaluate import find_leaks, read_holdout
    from distill.train import MarkedData, PairData, TrainData

    holdout = read_holdout(file)
    if method == "kto":
        asked = [row.conversation for row in MarkedData.read(dataset).train]
    elif method in ("dpo", "orpo"):
        asked = [pair.ending(pair.chosen) for pair in PairData.read(dataset).train]
    else:
        asked = list(TrainData.read(dataset).train)
    leaks = find_leaks(holdout, asked)
    if leaks:
        first = leaks[0]
        said = f"{len(leaks)} holdout items stand in the training rows, {first.id} in {first.where} first"
        err.print(Text(said, style="yellow"))
    return len(leaks)


def student_name(config: TrainConfig) -> str:
    """What a trained student is called inside a run."""
    return f"{Path(config.model).name}-{config.adapter}{'' if config.method == 'sft' else f'-{config.method}'}"


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
    given = {key: item for key, item in over.items() if item is not None}
    return parse(TrainConfig, _over(cast("dict[str, Any]", value), given), path=path, lines=lines)


def _over(settings: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    """What options say over the settings; the teacher leaves the rest of its section as it is."""
    if "distillation" in given:
        given = {**given, "distillation": {**(settings.get("distillation") or {}), **given["distillation"]}}
    return {**settings, **given}
