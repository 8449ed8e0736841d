"""Everything a run needs, loaded and checked, before the first request and without one.

`check`, `preview` and `generate` start here: what is wrong with the user's files is found in this module.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from distill.assets import find, workspace_of
from distill.filters import Chain, FilterContext, build_chain
from distill.io import digest
from distill.methods import Method, build_method
from distill.planning import Planner, Seed, Taxonomy, load_seeds, load_taxonomy
from distill.prompting import PromptBook
from distill.recipe import EvalSet, FilterStep, Recipe, load_chain

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
    eval_sets: tuple[EvalSet, ...]
    inputs: str
    """Digest of all that decides the rows."""

    def planner(self) -> Planner:
        plan = self.recipe.plan
        return Planner(
            self.recipe.name,
            self.taxonomy,
            self.seeds,
            seed=self.recipe.seed,
            seeds_per_slot=plan.seeds_per_slot,
            adversarial_share=plan.adversarial_share,
        )

    def method(self) -> Method:
        return build_method(self.recipe, self.prompts)

    def chain(self) -> Chain:
        seeds = [(seed.id, seed.text) for seed in (*self.taxonomy.seeds(), *self.seeds)]
        return build_chain(self.steps, FilterContext(folder=self.recipe.folder, seeds=seeds, eval_sets=self.eval_sets))


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
    steps = load_chain(recipe.filters, folder) if isinstance(recipe.filters, str) else recipe.filters
    digests["filters"] = digest([step.model_dump(mode="json", by_alias=True) for step in steps])
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
        eval_sets=eval_sets,
        inputs=digest(digests),
    )


def _eval_sets(recipe: Recipe) -> tuple[EvalSet, ...]:
    """The declared sets and the holdout: no row may repeat a question that proves the gain."""
    sets: Sequence[EvalSet] = recipe.eval_sets
    if recipe.evaluate is not None and all(item.path != recipe.evaluate.holdout for item in sets):
        sets = (*sets, EvalSet(path=recipe.evaluate.holdout, name="holdout"))
    return tuple(sets)


def _file(path: Path) -> str:
    return digest(path.read_bytes())
