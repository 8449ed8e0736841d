"""The systems of an evaluation, opened: weights on this machine, endpoints, the recipe's teacher."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distill.errors import InputError

if TYPE_CHECKING:
    from pydantic import SecretStr

    from distill.evaluate import System, TeacherSystem
    from distill.evaluate.systems import SystemSpec
    from distill.recipe import EvaluateConfig, Price, Recipe

__all__ = ["Answering", "open_systems", "open_teacher"]


@dataclass(frozen=True)
class Answering:
    """How answers are made, and what endpoints may cost."""

    max_tokens: int
    batch_size: int
    latency_items: int
    folder: Path
    """Where relative names start from; the answer store and `runs/` are those of its workspace."""
    run: str = "eval"
    """Under which name endpoints are paid."""
    store: SecretStr | None = None
    """The recipe's own answer store."""
    key: SecretStr | None = None
    price: Price | None = None
    budget_usd: Decimal | None = None

    @property
    def limits(self) -> dict[str, Any]:
        return {"max_tokens": self.max_tokens, "batch_size": self.batch_size, "latency_items": self.latency_items}


@contextlib.asynccontextmanager
async def open_systems(specs: Sequence[SystemSpec], how: Answering) -> AsyncGenerator[list[System]]:
    """The systems of `specs`, in their order. Weights are looked at now and loaded when they answer.

    Raises:
        InputError: a system is not there.
        RunError: an endpoint does not answer.
    """
    from distill.evaluate.endpoint import Endpoint, open_endpoint

    async with contextlib.AsyncExitStack() as stack:
        systems: list[System] = []
        for spec in specs:
            if spec.kind != "endpoint":
                systems.append(_weights(spec, how))
                continue
            endpoint = Endpoint(spec.what, spec.model or "", spec.name, how.key, how.price)
            opened = open_endpoint(
                endpoint,
                _workspace(how.folder),
                run=how.run,
                store=how.store,
                max_tokens=how.max_tokens,
                budget_usd=how.budget_usd,
            )
            systems.append(await stack.enter_async_context(opened))
        yield systems


def _weights(spec: SystemSpec, how: Answering) -> System:
    from distill.evaluate import Student
    from distill.release.record import weights_of

    base, made_from = spec.model, None
    if spec.kind == "release":
        from distill.release import Registry

        listed = Registry(_workspace(how.folder) / "releases").find(spec.what)
        path, made_from = listed.folder / listed.release.weights, listed.release.base
    elif spec.kind == "run":
        path = _student_of(spec.what, how)
    else:
        path = Path(spec.what).expanduser()
        if not path.exists():
            if base is not None or path.suffix == ".gguf":
                raise InputError("no such file or folder", path=path)
            return Student(spec.what, None, spec.name, **how.limits)  # a name of the catalogue
    kind, weights = weights_of(path)
    if kind == "gguf":
        return _gguf(spec.name, weights, base or made_from or _made_from(weights), how)
    if kind == "model":
        return Student(str(weights), None, spec.name, **how.limits)
    from distill.train.bases import start_from

    start = start_from(weights, base)
    return Student(str(start.base.folder), start.adapter, spec.name, **how.limits)


def _gguf(name: str, file: Path, model: str, how: Answering) -> System:
    from distill.release.llama import LlamaSystem

    return LlamaSystem(file, model, name, how.max_tokens, how.latency_items)


def _made_from(file: Path) -> str:
    """The model that an export says the file was made from."""
    from distill.io import loads

    beside = file.with_name(f"{file.name}.json")
    model = loads(beside.read_bytes()).get("model") if beside.is_file() else None
    if not model:
        raise InputError(
            "does not say which model it was made from",
            path=file,
            hint=f"write {file}#MODEL: its tokenizer and template build the prompts",
        )
    return str(model)


def _student_of(run: str, how: Answering) -> Path:
    """The output of the one training of a run; `RUN/STUDENT` names one of several."""
    for folder in (Path(run).expanduser(), _workspace(how.folder) / "runs" / run):
        if (folder / "train.json").is_file():
            return folder
        if folder.is_dir():
            break
    else:
        run_name, slash, student = run.rpartition("/")
        folder = _workspace(how.folder) / "runs" / run_name / "train" / student
        if slash and (folder / "train.json").is_file():
            return folder
        raise InputError(f"no such run: {run}", hint=f"looked in {_workspace(how.folder) / 'runs'}")
    found = sorted(file.parent for file in folder.glob("train/*/train.json"))
    if len(found) == 1:
        return found[0]
    if not found:
        raise InputError("no student was trained in this run", path=folder)
    names = ", ".join(f"run:{run}/{each.name}" for each in found)
    raise InputError("several students were trained in this run", path=folder, hint=f"say which: {names}")


@contextlib.asynccontextmanager
async def open_teacher(recipe: Recipe, config: EvaluateConfig, run: Path) -> AsyncGenerator[TeacherSystem | None]:
    """The recipe's teacher behind the gateway, with the answer store of the workspace: it is asked once, ever."""
    if config.teacher is None:
        yield None
        return
    from distill.assets import find
    from distill.evaluate import TeacherSystem
    from distill.gateway import Gateway, open_store, store_address
    from distill.io import loads
    from distill.planning import Slot, Topic
    from distill.prompting import PromptBook
    from distill.teachers import make_teacher

    shape = None
    if config.schema_file is not None:
        shape = loads(find("prompts", config.schema_file, base=recipe.folder).read_bytes())
    system = None
    if config.teacher_system is not None:
        # A prompt file speaks of a slot; instructions for a holdout have none, so an empty one stands in.
        prompt = PromptBook(recipe.folder).get(config.teacher_system)
        system = prompt.render(Slot("eval-0", 0, Topic(("eval",))))
    chosen = {name: recipe.teachers[name] for name in recipe.members(config.teacher)}
    here = all(each.provider == "local" for each in chosen.values())
    store = open_store(_workspace(recipe.folder), store_address(recipe.store))
    try:
        teachers = {name: make_teacher(name, each) for name, each in chosen.items()}
        async with Gateway(
            teachers,
            recipe.teachers,
            store,
            run=f"{run.name}/eval",
            budget=recipe.budget,
            groups=recipe.teacher_groups,
            seed=recipe.seed,
        ) as gateway:
            yield TeacherSystem(
                config.teacher,
                gateway.ask,
                model=", ".join(each.model for each in chosen.values()),
                system=system,
                max_tokens=config.max_tokens,
                schema=shape,
                window=sum(each.max_concurrency for each in chosen.values()),
                priced=all(
                    each.price is not None or (each.provider != "local" and gateway.price_known(name))
                    for name, each in chosen.items()
                ),
                here=here,
            )
    finally:
        store.close()


def _workspace(folder: Path) -> Path:
    from distill.assets import workspace_of

    return workspace_of(folder)
