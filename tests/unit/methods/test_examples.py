"""The shipped recipes, prompts and taxonomy work together: made-up answers go through them as a rehearsal's do."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import Any

import orjson
import pytest
from methods_kit import Script, billed, failures, rows

from distill.io import digest
from distill.methods import build_method
from distill.methods.numbers import number
from distill.methods.verify import Verifier
from distill.planning import Planner, load_taxonomy
from distill.prompting import PromptBook
from distill.recipe import Check, ReasoningConfig, Recipe, ResponseConfig, load_recipe
from distill.teachers import Request
from distill.teachers.invent import Dice, sentences, value_for

ROOT = Path(__file__).parents[3]


def made_up(request: Request, sample: int) -> str:
    dice = Dice(int(digest([repr(request), sample], size=7), 16))
    return sentences(dice) if request.schema is None else orjson.dumps(value_for(request.schema, dice)).decode()


def slots(recipe: Recipe, count: int) -> Any:
    taxonomy = load_taxonomy(ROOT / "taxonomies" / f"{recipe.plan.taxonomy}.yaml")
    plan = recipe.plan
    planner = Planner(recipe.name, taxonomy, seed=recipe.seed, seeds_per_slot=plan.seeds_per_slot)
    return islice(planner.slots(), count)


async def rehearse(recipe: Recipe, count: int) -> tuple[list[Any], Script]:
    method = build_method(recipe, PromptBook(recipe.folder))
    ask = Script(made_up)
    return [outcome for slot in slots(recipe, count) for outcome in await method(slot, ask)], ask


@pytest.mark.parametrize("name", ["reasoning", "preference"])
async def test_a_shipped_recipe_makes_rows(name: str) -> None:
    recipe = load_recipe(ROOT / "recipes" / f"{name}.yaml")
    outcomes, ask = await rehearse(recipe, 24)
    assert len(rows(outcomes)) >= 12
    assert billed(outcomes) == ask.spent
    for row in rows(outcomes):
        assert row.messages[0].content.startswith(row.slot.seeds[0].text)
        if name == "reasoning":
            assert row.reasoning
            assert number(row.answer or "") is not None
        else:
            assert row.scores["margin"] >= 2


async def test_the_variants_the_examples_speak_of_work_too() -> None:
    recipe = load_recipe(ROOT / "recipes" / "preference.yaml")
    pairwise = {"mode": "pairwise", "judge_prompt": "preference/judge.j2", "margin": 1.0}
    outcomes, _ = await rehearse(recipe.model_copy(update={"method": recipe.method.model_copy(update=pairwise)}), 24)
    assert rows(outcomes)
    assert {failure.failure.value for failure in failures(outcomes)} <= {"tie"}

    recipe = load_recipe(ROOT / "recipes" / "reasoning.yaml")
    section: Any = {
        "kind": "reasoning",
        "teacher": "solver",
        "input": "reasoning/question.j2",
        "prompt": "reasoning/chain.j2",
        "answer": "all",
    }
    method = ReasoningConfig.model_validate(section)
    outcomes, ask = await rehearse(recipe.model_copy(update={"method": method}), 2)
    assert len(rows(outcomes)) == 2
    assert rows(outcomes)[0].messages[0].content in ask.users[1]

    section = {
        "kind": "response",
        "teacher": "solver",
        "input": "response/input.j2",
        "prompt": "response/answer.j2",
        "items": 3,
    }
    method = build_method(
        recipe.model_copy(update={"method": ResponseConfig.model_validate(section)}), PromptBook(recipe.folder)
    )
    for slot in slots(recipe, 2):
        assert len(rows(await method(slot, Script(made_up)))) == 3


def test_every_seed_of_the_arithmetic_taxonomy_has_an_answer_that_can_be_checked() -> None:
    recipe = load_recipe(ROOT / "recipes" / "reasoning.yaml")
    verify = Verifier(Check(kind="numeric", against="seed.answer"), recipe.folder)
    for slot in slots(recipe, 60):
        known = verify.known(slot)
        assert known is not None
        assert verify(known, known)
