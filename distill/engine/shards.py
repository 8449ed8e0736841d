"""What one shard of a run may spend and send, and how a merged run asks: the store alone.

Shards run at the same time against the same accounts, so the recipe's caps on money and tokens, its rates a minute and
its quotas by the day are divided among them: together they keep what one run would have kept. What a shard has used of
a day is told by the store, which others may share, so the name under which a shard pays says whose shard it is.
"""

from __future__ import annotations

import os
import re
import uuid
from collections.abc import Callable, Mapping
from decimal import ROUND_DOWN, Decimal
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from distill.engine.accounting import Account
from distill.engine.prepare import Prepared
from distill.engine.rounds import plan_round
from distill.errors import FailureClass, TeacherError
from distill.planning import Shard
from distill.recipe import Budget, Recipe, TeacherConfig
from distill.teachers import Reading, Reply, Request, Teacher, make_teacher

__all__ = [
    "SealedTeacher",
    "apart_from",
    "budget_of",
    "first_round",
    "name_of",
    "origin_of",
    "payer_of",
    "teachers_of",
]

_PICO = Decimal(1).scaleb(-12)
_RATES = ("requests_per_minute", "tokens_per_minute", "input_tokens_per_minute", "output_tokens_per_minute")
_QUOTAS = ("requests_per_day", "tokens_per_day")


def name_of(recipe_name: str, shard: Shard | None) -> str:
    """What the run directories are called, before their number."""
    return recipe_name if shard is None else f"{recipe_name}-shard-{shard.index}-of-{shard.of}"


def origin_of(recipe: Recipe, shard: Shard | None, run: Path, file: str = "") -> dict[str, Any]:
    """What `run.json` of a shard says besides: `distill unite` finds the others by it, and the recipe's files."""
    if shard is None:
        return {}
    return {"shard": str(shard), "folder": os.path.relpath(recipe.folder.resolve(), run.resolve()), "file": file}


def payer_of(inputs: str, shard: Shard | None) -> str:
    """A new name under which a run pays. Those of the shards of one plan begin alike: see `apart_from`."""
    name = uuid.uuid4().hex
    return name if shard is None else f"{_stem(inputs)}-{shard.index}-of-{shard.of}-{name[:12]}"


def apart_from(inputs: str, shard: Shard | None) -> Callable[[str], bool]:
    """Whether a name is that of another shard of the same plan, which has its own part of the quotas by the day. One
    that was made again is the same shard."""
    if shard is None:
        return lambda run: False
    pattern = re.compile(rf"{re.escape(_stem(inputs))}-(\d+)-of-{shard.of}-[0-9a-f]+")

    def others(run: str) -> bool:
        found = pattern.fullmatch(run)
        return found is not None and int(found[1]) != shard.index

    return others


def _stem(inputs: str) -> str:
    return inputs[:12]


def budget_of(budget: Budget, shard: Shard | None) -> Budget:
    """The shard's part of the caps; hours are everybody's own."""
    if shard is None:
        return budget
    usd = None if budget.usd is None else (budget.usd / shard.of).quantize(_PICO, ROUND_DOWN)
    tokens = None if budget.tokens is None else max(1, budget.tokens // shard.of)
    return budget.model_copy(update={"usd": usd, "tokens": tokens})


def teachers_of(recipe: Recipe, shard: Shard | None) -> Mapping[str, TeacherConfig]:
    """The teachers, with the shard's part of their rates and quotas."""
    if shard is None:
        return recipe.teachers
    parts: dict[str, TeacherConfig] = {}
    for name, config in recipe.teachers.items():
        whole = {field: getattr(config.limits, field) for field in (*_RATES, *_QUOTAS)}
        part: dict[str, float] = {
            field: max(1, limit // shard.of) if field in _QUOTAS else limit / shard.of
            for field, limit in whole.items()
            if limit is not None
        }
        parts[name] = config.model_copy(update={"limits": config.limits.model_copy(update=part)})
    return parts


def first_round(prepared: Prepared, shard: Shard, *, rows_per_slot: float) -> dict[tuple[str, ...], int]:
    """The shard's slots of the round that one run would plan first: none of them is left to nobody."""
    plan = prepared.recipe.plan
    quota = prepared.planner().quota(plan.target)
    wanted = plan_round(Account.open(quota), rows_per_slot=rows_per_slot, expected_yield=plan.expected_yield)
    mine = shard.quota({leaf: wanted.get(leaf, 0) for leaf in quota})
    return {leaf: count for leaf, count in mine.items() if count}


class SealedTeacher:
    """A teacher that only says how its stored answers are found and read: it needs no key, no server, no weights."""

    def __init__(self, name: str, config: TeacherConfig) -> None:
        key = SecretStr("sealed") if config.provider in ("openai", "anthropic") else None
        self._teacher: Teacher = make_teacher(name, config.model_copy(update={"api_key": key}))
        self.provider = self._teacher.provider
        self.model = self._teacher.model

    def wire(self, request: Request, sample: int) -> dict[str, Any]:
        """As the teacher's."""
        return self._teacher.wire(request, sample)

    async def send(self, wire: Mapping[str, Any], *, timeout: float) -> Reply:  # noqa: ASYNC109 - the protocol's
        """Never called: the gateway of a merged run is sealed."""
        raise TeacherError(FailureClass.CONNECTION, "a merged run asks nobody")

    def failure(self, reply: Reply) -> TeacherError | None:
        """As the teacher's."""
        return self._teacher.failure(reply)

    def read(self, body: bytes) -> Reading:
        """As the teacher's."""
        return self._teacher.read(body)

    async def start(self) -> None:
        """Nothing to open."""

    async def close(self) -> None:
        """Nothing to close."""
