"""`docs/recipe.md`: every section and field of a recipe, from the models that check it."""

from __future__ import annotations

import inspect
import types
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Annotated, Any, Literal, Union, cast, get_args, get_origin

from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from distill.recipe.filters import EvalSet, step_kinds
from distill.recipe.groups import TeacherGroup
from distill.recipe.hook import HookConfig
from distill.recipe.method import Check, PreferenceConfig, ReasoningConfig, ResponseConfig
from distill.recipe.output import Budget, DatasetConfig, MixConfig
from distill.recipe.plan import PlanConfig
from distill.recipe.recipe import Recipe
from distill.recipe.teachers import BatchConfig, Limits, Price, Sampling, Simulation, TeacherConfig

__all__ = ["render_recipe", "table"]

_INTRO = """\
# The recipe

<!-- Written by `python -m distill.recipe.schema` from the models in distill/recipe; do not edit. -->

One YAML file says everything about a run. Unknown keys are errors that name the nearest known one, and paths are
relative to the recipe's folder, else to the workspace; a bare name (`filters: default`) is looked for in the folder
of its kind. `${NAME}` takes a value from the environment and stands in `api_key` and `hook.webhook` only. Editors
complete and check with [`recipes/recipe.schema.json`](../recipes/recipe.schema.json): begin a recipe with
`# yaml-language-server: $schema=recipe.schema.json`.

```yaml
name: probe
seed: 7
teachers:
  main:
    provider: openai
    base_url: http://127.0.0.1:8000/v1
    model: my-model
    api_key: ${TEACHER_KEY}
    price: {input: 0.15, output: 0.60}
    sampling: {temperature: 0.8, max_tokens: 64}
plan:
  taxonomy: taxonomies/probe.yaml
  target: 2000
method: {kind: response, teacher: main, prompt: prompts/probe.j2}
filters: []
budget: {usd: 5}
```
"""


def render_recipe() -> str:
    """The whole page."""
    from distill.recipe.distillation import DistillationLoss
    from distill.recipe.evaluate import EvaluateConfig, UnsafeConfig
    from distill.recipe.train import LoraConfig, PreferenceLoss, TrainConfig, WatchConfig

    training = {
        "lora": LoraConfig,
        "preference": PreferenceLoss,
        "distillation": DistillationLoss,
        "watch": WatchConfig,
    }
    parts = [_INTRO, "## Top level\n", table(Recipe)]
    sections: list[tuple[str, type[BaseModel], Mapping[str, type[BaseModel]]]] = [
        (
            "`teachers.NAME`",
            TeacherConfig,
            {"sampling": Sampling, "limits": Limits, "price": Price, "simulate": Simulation, "batch": BatchConfig},
        ),
        ("`teacher_groups.NAME`", TeacherGroup, {}),
        ("`plan`", PlanConfig, {}),
        ("`method` with `kind: response`", ResponseConfig, {}),
        ("`method` with `kind: reasoning`", ReasoningConfig, {"check": Check}),
        ("`method` with `kind: preference`", PreferenceConfig, {}),
    ]
    for title, model, inner in sections:
        parts += _section(title, model, inner)
    parts += [
        "## `filters`\n",
        "A list of steps, or the name of a chain file in `filters/`, which is such a list. Every step has a `kind`;\n"
        "rows that pass all steps are kept.\n",
    ]
    for kind, step in step_kinds().items():
        parts += [f"### `kind: {kind}`\n", f"{_about(step)}\n", table(step, without=("kind",))]
    for title, model, inner in (
        ("`eval_sets`", EvalSet, {}),
        ("`budget`", Budget, {}),
        ("`dataset`", DatasetConfig, {"mix": MixConfig}),
        ("`train`", TrainConfig, training),
        ("`evaluate`", EvaluateConfig, {"unsafe": UnsafeConfig}),
        ("`hook`", HookConfig, {}),
    ):
        parts += _section(title, model, cast("Mapping[str, type[BaseModel]]", inner))
    return "\n".join(parts)


def table(model: type[BaseModel], *, without: tuple[str, ...] = ()) -> str:
    """A Markdown table of a model's fields."""
    rows = ["| field | value | default | meaning |", "|---|---|---|---|"]
    for name, info in model.model_fields.items():
        if name not in without:
            cells = (
                f"`{info.alias or name}`",
                _value(info),
                _default(info),
                " ".join((info.description or "").split()),
            )
            rows.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(rows) + "\n"


def _section(title: str, model: type[BaseModel], inner: Mapping[str, type[BaseModel]]) -> list[str]:
    parts = [f"## {title}\n", f"{_about(model)}\n", table(model)]
    for name, part in inner.items():
        parts += [f"### `{name}`\n", f"{_about(part)}\n", table(part)]
    return parts


def _about(model: type[BaseModel]) -> str:
    return inspect.cleandoc(model.__doc__ or "")


def _value(info: FieldInfo) -> str:
    bounds = [
        f"{sign} {_number(getattr(note, key))}"
        for note in info.metadata
        for key, sign in (("gt", ">"), ("ge", "≥"), ("lt", "<"), ("le", "≤"))
        if getattr(note, key, None) is not None
    ]
    return ", ".join((_kind(info.annotation), *bounds))


def _kind(annotation: Any) -> str:
    if get_origin(annotation) is Annotated:
        return _kind(get_args(annotation)[0])
    if get_origin(annotation) is Literal:
        return ", ".join(f"`{value}`" for value in get_args(annotation))
    if get_origin(annotation) in (Union, types.UnionType):
        members = dict.fromkeys(_kind(member) for member in get_args(annotation) if member is not type(None))
        return " or ".join(members)
    if get_origin(annotation) in (list, tuple):
        return f"list of {_kind(get_args(annotation)[0])}"
    if get_origin(annotation) is dict:
        return f"mapping of names to {_kind(get_args(annotation)[1])}"
    return _NAMES.get(annotation) or ("section" if hasattr(annotation, "model_fields") else str(annotation))


_NAMES: dict[Any, str] = {
    str: "text", int: "whole number", float: "number", Decimal: "number", bool: "true or false",
    SecretStr: "secret", Any: "anything",
}  # fmt: skip


def _default(info: FieldInfo) -> str:
    if info.is_required():
        return "needed"
    value = info.default if info.default is not PydanticUndefined else cast("Callable[[], Any]", info.default_factory)()
    if value is None or value in ((), {}, "") or isinstance(value, BaseModel):
        return ""
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, tuple):
        return ", ".join(f"`{item}`" for item in cast("tuple[Any, ...]", value))
    return f"`{_number(value)!s}`".replace("\n", "\\n")


def _number(value: Any) -> Any:
    return f"{value:g}" if isinstance(value, float) else value
