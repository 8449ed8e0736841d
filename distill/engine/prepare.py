"""Everything a run needs, loaded and checked, before the first request and without one.

`check`, `preview` and `generate` start here: what is wrong with the user's files is found in this module.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import SecretStr

from distill.assets import find, workspace_of
from distill.dataset.schema import ROW_SCHEMA
from distill.errors import InputError
from distill.filters import Chain, FilterContext, build_chain
from distill.filters.building import choice_of
from distill.filters.custom import package_of
from distill.filters.decontamination.doubts import Opinion
from distill.filters.near.survivors import declared, rank
from distill.filters.selection.passes import check_choice
from distill.filters.semantic.embedding import resolve_model
from distill.gateway import Address, PostgresStore, SqliteStore, open_store, store_address
from distill.io import digest
from distill.methods import Method, build_method
from distill.planning import Planner, Seed, Shard, Taxonomy, load_seeds, load_taxonomy
from distill.prompting import PromptBook
from distill.recipe import (
    CustomStep,
    DecontaminateStep,
    DiversityStep,
    EvalSet,
    FilterStep,
    Recipe,
    VerdictConfig,
    load_chain,
    suggest,
)

__all__ = ["Prepared", "prepare"]

_PROMPT_FIELDS = ("prompt", "input", "label", "system", "judge_prompt")


@dataclass(frozen=True, slots=True)
class Prepared:
    """A recipe with all its files. Holds no connection, no file handle and no state: planners, chains and methods
    are made fresh for every session, because replay starts from nothing."""

    recipe: Recipe
    workspace: Path
    taxonomy: Taxonomy
    taxonomy_path: Path
    seeds: tuple[Seed, ...]
    prompts: PromptBook
    prompt_names: tuple[str, ...]
    steps: tuple[FilterStep, ...]
    """Those that judge rows."""
    choice: DiversityStep | None
    """What chooses among the kept rows those of the training files."""
    eval_sets: tuple[EvalSet, ...]
    inputs: str
    """Digest of all that decides the rows."""
    store: SecretStr | None = None
    """Address of the server that holds the answers; None: a file of the workspace."""

    def planner(self, shard: Shard | None = None) -> Planner:
        plan = self.recipe.plan
        return Planner(
            self.recipe.name,
            self.taxonomy,
            self.seeds,
            seed=self.recipe.seed,
            seeds_per_slot=plan.seeds_per_slot,
            adversarial_share=plan.adversarial_share,
            shard=shard,
        )

    def open_store(self) -> SqliteStore | PostgresStore:
        """The answer store, to be closed."""
        return open_store(self.workspace, self.store)

    def store_secrets(self) -> tuple[str, ...]:
        """What of the store's address must stand in no text."""
        return Address(self.store.get_secret_value()).secrets if self.store is not None else ()

    def method(self) -> Method:
        return build_method(self.recipe, self.prompts)

    def chain(self, opinion: Callable[[VerdictConfig], Opinion] | None = None) -> Chain:
        """Args:
        opinion: who gives verdicts; without it (a preview, an estimate) thresholds decide alone.
        """
        seeds = [(seed.id, seed.text) for seed in (*self.taxonomy.seeds(), *self.seeds)]
        return build_chain(
            self.steps,
            FilterContext(folder=self.recipe.folder, seeds=seeds, eval_sets=self.eval_sets, opinion=opinion),
        )


def prepare(recipe: Recipe, *, workspace: Path | None = None) -> Prepared:
    """Load what the recipe names.

    Raises:
        InputError: a file is missing or wrong.
    """
    folder = recipe.folder
    taxonomy_path = find("taxonomies", recipe.plan.taxonomy, base=folder)
    taxonomy = load_taxonomy(taxonomy_path)
    seeds: tuple[Seed, ...] = ()
    digests: dict[str, str] = {"recipe": recipe.digest, "taxonomy": _file(taxonomy_path)}
    if recipe.plan.seeds is not None:
        seeds_path = find("data", recipe.plan.seeds, base=folder)
        seeds = tuple(load_seeds(seeds_path, taxonomy))
        digests["seeds"] = _file(seeds_path)
    prompts = PromptBook(folder)
    names = tuple(name for field in _PROMPT_FIELDS if isinstance(name := getattr(recipe.method, field, None), str))
    for name in names:
        digests[f"prompt {name}"] = prompts.get(name).digest
    declared_steps = load_chain(recipe.filters, folder) if isinstance(recipe.filters, str) else recipe.filters
    steps, choice = choice_of(declared_steps)
    _check_verdicts(steps, recipe)
    if (keep := declared(steps)) is not None:
        rank(ROW_SCHEMA.empty_table(), keep)
    if choice is not None:
        check_choice(choice, ROW_SCHEMA)
        resolve_model(choice.model, folder)
    digests["filters"] = digest([step.model_dump(mode="json", by_alias=True) for step in declared_steps])
    digests |= _beside(steps, folder)
    eval_sets = _eval_sets(recipe)
    for eval_set in eval_sets:
        digests[f"eval {eval_set.path}"] = _file(find("data", eval_set.path, base=folder))
    if recipe.dataset.mix is not None:
        find("data", recipe.dataset.mix.path, base=folder)  # missing is an error now, not when all is paid
    return Prepared(
        recipe=recipe,
        workspace=workspace or workspace_of(folder),
        taxonomy=taxonomy,
        taxonomy_path=taxonomy_path,
        seeds=seeds,
        prompts=prompts,
        prompt_names=names,
        steps=tuple(steps),
        choice=choice,
        eval_sets=eval_sets,
        inputs=digest(digests),
        store=store_address(recipe.store),
    )


def _check_verdicts(steps: Sequence[FilterStep], recipe: Recipe) -> None:
    for step in steps:
        verdict = step.verdict if isinstance(step, DecontaminateStep) else None
        if verdict is None:
            continue
        if not isinstance(verdict.teacher, str):
            hint = f"put the teacher into `teachers:` and give its name; there are {', '.join(recipe.teachers)}"
            raise InputError("in a recipe a verdict's teacher is a name", field="filters.verdict.teacher", hint=hint)
        known = (*recipe.teachers, *recipe.teacher_groups)
        if verdict.teacher not in known:
            what = f"no such teacher: {verdict.teacher!r}; {suggest(verdict.teacher, known)}"
            raise InputError(what, field="filters.verdict.teacher")


def _beside(steps: Sequence[FilterStep], folder: Path) -> dict[str, str]:
    """What decides beside the steps themselves: files that rows are compared with, packages that bring filters."""
    found: dict[str, str] = {}
    for step in steps:
        if isinstance(step, CustomStep):
            found[f"filter {step.filter}"] = package_of(step)
        for other in getattr(step, "against", ()):
            if not other.path.startswith("hub:"):
                found[f"against {other.path}"] = _file(find("data", other.path, base=folder))
        if (clean := getattr(step, "clean", None)) is not None:
            found[f"clean {clean}"] = _file(find("data", clean, base=folder))
        if (index := getattr(step, "index", None)) is not None and (
            path := folder / Path(index).expanduser()
        ).is_file():
            found[f"index {index}"] = _file(path)
    return found


def _eval_sets(recipe: Recipe) -> tuple[EvalSet, ...]:
    """The declared sets, the holdout and the general questions: no row may repeat what proves a gain or a loss."""
    sets = list(recipe.eval_sets)
    if recipe.evaluate is not None:
        own = {"holdout": recipe.evaluate.holdout, "general": recipe.evaluate.general}
        declared = {item.path for item in sets}
        sets += [EvalSet(path=path, name=name) for name, path in own.items() if path and path not in declared]
    return tuple(sets)


def _file(path: Path) -> str:
    return digest(path.read_bytes())
