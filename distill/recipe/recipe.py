"""The recipe: everything a run needs, in one file a person reads in a minute."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from pydantic import Field, PrivateAttr, SecretStr, field_validator, model_validator

from distill.io import digest
from distill.recipe.base import Section
from distill.recipe.evaluate import EvaluateConfig
from distill.recipe.filters import EvalSet, Filters
from distill.recipe.groups import TeacherGroup
from distill.recipe.hook import HookConfig
from distill.recipe.method import MethodConfig, PreferenceConfig, ResponseConfig
from distill.recipe.output import Budget, DatasetConfig
from distill.recipe.plan import PlanConfig
from distill.recipe.problems import suggest
from distill.recipe.teachers import TeacherConfig
from distill.recipe.train import TrainConfig

__all__ = ["Recipe"]


class Recipe(Section):
    """From a taxonomy and teachers to a dataset, and on to a trained and measured student."""

    name: str
    """Names the run directory: letters, digits, `-`, `_` and `.`."""
    description: str = ""
    """One line for people; stands in the dataset card."""
    seed: int = 0
    """Decides every draw: slots, seeds, splits, training."""
    teachers: dict[str, TeacherConfig] = Field(min_length=1)
    """The teachers, by the names the method uses."""
    teacher_groups: dict[str, TeacherGroup] = Field(default_factory=dict[str, TeacherGroup])
    """Several teachers under one name, by shares and as fallbacks; the name stands wherever a teacher's does."""
    plan: PlanConfig
    """What the rows are about and how many are wanted."""
    method: MethodConfig
    """How one slot becomes rows."""
    filters: Filters = "default"
    """Steps that decide every row's fate, or the name of a chain in `filters/`."""
    eval_sets: tuple[EvalSet, ...] = ()
    """Sets that must not leak into the rows; `decontaminate` steps use them. The holdout is always one of them."""
    budget: Budget = Budget()
    """Caps on money, tokens and time."""
    dataset: DatasetConfig = DatasetConfig()
    """The training files."""
    store: SecretStr | None = None
    """PostgreSQL server that keeps the answers of a team: `${NAME}`, an address `postgresql://…` in that variable. Left
    out: what the environment's DISTILL_STORE names, else a file of the workspace."""
    train: TrainConfig | None = None
    """The student."""
    evaluate: EvaluateConfig | None = None
    """The proof."""
    hook: HookConfig | None = None
    """Who is told when the run ends."""

    _folder: Path = PrivateAttr(default_factory=Path.cwd)

    @property
    def folder(self) -> Path:
        """The folder that relative paths start from: the recipe file's, or the current one."""
        return self._folder

    def at(self, folder: Path) -> Recipe:
        """The same recipe with its relative paths starting from `folder`."""
        placed = self.model_copy()
        placed._folder = folder
        return placed

    def public(self) -> dict[str, Any]:
        """The recipe as JSON values, without secrets: what may be written to a file."""
        data = self.model_dump(mode="json", by_alias=True)
        for teacher in data["teachers"].values():
            teacher.pop("api_key", None)
        data.pop("store")
        data.pop("hook")  # its address and the arguments of its command may be secrets
        return data

    @property
    def digest(self) -> str:
        """Identifies what decides the rows: keys, hosts, speed limits, budget, training and evaluation do not."""
        data = self.public()
        for key in ("description", "budget", "train", "evaluate", "dataset"):
            data.pop(key)
        if not self.teacher_groups:
            data.pop("teacher_groups")
        for teacher in data["teachers"].values():
            for key in ("base_url", "max_concurrency", "limits", "price", "timeout_s", "max_attempts", "headers"):
                teacher.pop(key)
            for key in ("mode", "batch", "patience_s"):  # the way an answer travels
                teacher.pop(key)
        return digest(data)

    def members(self, name: str) -> tuple[str, ...]:
        """The teachers that a name in the recipe stands for: its own, or those of the group."""
        group = self.teacher_groups.get(name)
        return (name,) if group is None else group.members

    @field_validator("name")
    @classmethod
    def _safe_name(cls, value: str) -> str:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", value):
            raise ValueError(f"not usable as a folder name: {value!r}; use letters, digits, '-', '_' and '.'")
        return value

    @model_validator(mode="after")
    def _teachers_exist(self) -> Recipe:
        method = self.method
        named: list[tuple[str, str | None]] = []
        if isinstance(method, PreferenceConfig):
            named += [*(("method.candidates", name) for name in method.candidates), ("method.judge", method.judge)]
        elif isinstance(method, ResponseConfig):
            named += [("method.teacher", method.teacher), ("method.input_teacher", method.input_teacher)]
        else:
            named += [("method.teacher", method.teacher)]
        if self.evaluate is not None:
            named.append(("evaluate.teacher", self.evaluate.teacher))
        for field, name in named:
            if name is not None and name not in self.teachers and name not in self.teacher_groups:
                known = (*self.teachers, *self.teacher_groups)
                raise ValueError(f"{field}: no such teacher: {name!r}; {suggest(name, known)}")
        return self

    @model_validator(mode="after")
    def _groups_hold_teachers(self) -> Recipe:
        for name, group in self.teacher_groups.items():
            if name in self.teachers:
                raise ValueError(f"teacher_groups.{name}: a teacher has this name already")
            for member in group.members:
                config = self.teachers.get(member)
                if config is None:
                    part = "share" if member in group.share else "fallback"
                    raise ValueError(
                        f"teacher_groups.{name}.{part}: no such teacher: {member!r}; {suggest(member, self.teachers)}"
                    )
                if config.mode != "online":
                    raise ValueError(
                        f"teachers.{member}.mode: the teachers of a group are asked online: a batch cannot go to"
                        " another teacher half way"
                    )
        return self

    @model_validator(mode="after")
    def _layout_fits(self) -> Recipe:
        # Found here, because the files are written after everything is paid.
        wanted, method = self.dataset.format, self.method
        if wanted == "preference" and not isinstance(method, PreferenceConfig):
            raise ValueError(f"dataset.format: the method {method.kind} makes no pairs; preference does")
        if wanted == "reasoning" and (isinstance(method, PreferenceConfig) or getattr(method, "label", None)):
            raise ValueError(f"dataset.format: the method {method.kind} makes no chains of thought here")
        if self.dataset.mix is not None and isinstance(method, PreferenceConfig):
            raise ValueError("dataset.mix: conversations cannot be mixed with pairs of answers")
        return self
