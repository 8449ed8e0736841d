"""A rehearsal: the whole recipe, offline, with simulated teachers, faults, crashes and resumes.

Everything is real but the teachers and the clock: planning, gateway, limits, prompts, parsing, filters, rounds, files.
Prices are those of the recipe's own teachers, so the money is the one the run would cost if answers were as long as the
simulated ones. A crash is a session in a process of its own that ends with SIGKILL; the next one goes on from the
store. The clock runs as much faster as this machine can follow.

A rehearsal lies in `<workspace>/rehearsals/<recipe>-<n>`, with a store of its own. Nothing in it is ever mixed with
real answers: the provider is `simulated` in every key, row and card.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from distill.engine.events import Progress, Summary
from distill.engine.prepare import Prepared, prepare
from distill.engine.run import Run
from distill.engine.rundir import RunDir
from distill.engine.session import teachers_used
from distill.errors import InputError, RunError
from distill.gateway import price_for
from distill.recipe import Recipe, Simulation, load_recipe

__all__ = ["Crash", "Plan", "Rehearsal", "parse_plan", "rehearsed"]

_PER_SECOND = 100.0
"""Requests a second that a slow machine follows."""
_FASTEST = 500.0
_LOOK_S = 0.005
_LAG_LOOK_S = 0.02
_DRAIN_LOOK_S = 0.2
_FIELDS = {
    "latency": "latency_s",
    "rpm": "requests_per_minute",
    **{name: name for name in ("jitter", "p429", "p500", "ptimeout", "prefusal", "plength", "pduplicate", "seed")},
}
_SECONDS = re.compile(r"([\d.]+)(ms|s)?")


@dataclass(frozen=True, slots=True)
class Plan:
    """What a rehearsal plays."""

    behaviour: dict[str, float]
    """Fields of the `simulate` section."""
    crashes: int = 0
    speed: float | None = None
    """Seconds of the rehearsal in one of the clock's; None: as many as this machine can follow."""


@dataclass(frozen=True, slots=True)
class Crash:
    """One killed session. Times in seconds of the rehearsal."""

    requests: int
    """Sent by the session."""
    in_flight: int
    """Without an answer when it was killed: asked again."""
    seconds: float


def parse_plan(text: str) -> Plan:
    """Read `latency=2s,rpm=500,p429=0.02,crash=3`.

    Raises:
        InputError: names what is wrong.
    """
    behaviour: dict[str, float] = {}
    others: dict[str, float] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        name, _, given = part.partition("=")
        match = _SECONDS.fullmatch(given)
        if name not in _FIELDS and name not in ("crash", "speed"):
            known = ", ".join((*_FIELDS, "crash", "speed"))
            raise InputError(f"no such thing to rehearse: {name!r}; there are {known}", field="--simulate")
        try:
            value = float(match.group(1)) * (0.001 if match.group(2) == "ms" else 1) if match else math.nan
        except ValueError:
            value = math.nan
        if math.isnan(value) or (match is not None and match.group(2) and name != "latency"):
            raise InputError(f"{name}: not a number: {given!r}", field="--simulate", hint="For example: latency=2s")
        (others if name in ("crash", "speed") else behaviour)[_FIELDS.get(name, name)] = value
    try:
        Simulation.model_validate(behaviour)
    except ValueError as error:
        said = "; ".join(f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in _errors(error))
        raise InputError(said, field="--simulate") from None
    speed = others.get("speed")
    if speed is not None and not 0 < speed <= 100_000:
        raise InputError("speed: a number above 0", field="--simulate")
    return Plan(behaviour, int(others.get("crash", 0)), speed)


def _errors(error: ValueError) -> list[Any]:
    return getattr(error, "errors", list)()


def rehearsed(recipe: Recipe, plan: Plan) -> Recipe:
    """The recipe with every teacher simulated: the same limits, sampling and prices, no key and no address."""
    teachers: dict[str, Any] = {}
    for name, config in recipe.teachers.items():
        own = config.simulate if config.provider == "simulated" else Simulation()
        price = price_for(config)
        if config.provider in ("local", "simulated") and config.price is None:
            price = None  # costs nothing
        behaviour = {**own.model_dump(), **plan.behaviour}
        behaviour["seed"] = int(behaviour["seed"])
        teachers[name] = config.model_copy(
            update={
                "provider": "simulated",
                "base_url": None,
                "api_key": None,
                "headers": {},
                "mode": "online",
                "price": price,
                "simulate": Simulation.model_validate(behaviour),
            }
        )
    return recipe.model_copy(update={"teachers": teachers, "hook": None})


class Rehearsal:
    """One rehearsal of a recipe file, in a folder of its own.

    Raises:
        InputError: the recipe is wrong.
    """

    def __init__(self, path: Path, plan: Plan) -> None:
        self._path, self._plan = path, plan
        prepared = prepare(rehearsed(load_recipe(path), plan))
        self.folder = _next_folder(prepared.workspace / "rehearsals", prepared.recipe.name)
        self._prepared = replace(prepared, workspace=self.folder, store=None)
        self.speed = plan.speed or _speed(self._prepared.recipe)
        self.crashes: list[Crash] = []
        self.lag = 0.0
        """Seconds of the rehearsal by which this machine woke up too late, on average."""
        self._run: Run | None = None
        self._drained = False

    def progress(self) -> Progress:
        """Of the last session; the ones before it tell nothing."""
        return (self._run or _run(self._prepared, self.speed)).progress()

    def drain(self) -> None:
        """End now, softly."""
        self._drained = True
        if self._run is not None:
            self._run.drain()

    async def execute(self) -> Summary:
        """All sessions: those that crash, then the one that ends by itself. Its summary has the rehearsal's time."""
        chance = random.Random(self._prepared.recipe.seed)  # noqa: S311 - when to crash
        self.folder.mkdir(parents=True)
        (self.folder.parent / ".gitignore").write_text("*\n")
        requests = self._prepared.recipe.plan.target * self._prepared.method().requests_per_slot
        mean = requests / (self._plan.crashes + 1)
        for _ in range(self._plan.crashes):
            crash = await self._crash(max(1, round(mean * chance.uniform(0.6, 1.0))))
            if crash is None or self._drained:
                break
            self.crashes.append(crash)
        run = self._run = _run(self._prepared, self.speed)
        if self._drained:
            run.drain()
        watching = asyncio.create_task(self._watch_lag())
        try:
            return await run.execute()
        finally:
            watching.cancel()

    async def _watch_lag(self) -> None:
        looks = 0
        while True:
            before = time.monotonic()
            await asyncio.sleep(_LAG_LOOK_S)
            late = (time.monotonic() - before - _LAG_LOOK_S) * self.speed
            looks += 1
            self.lag += (late - self.lag) / looks

    async def _crash(self, after: int) -> Crash | None:
        """A session that is killed after that many answers; None when it came to its end before."""
        note = self.folder / "crash.json"
        note.unlink(missing_ok=True)
        given = {
            "path": str(self._path),
            "folder": str(self.folder),
            "behaviour": self._plan.behaviour,
            "speed": self.speed,
            "after": after,
        }
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "distill.engine.rehearse", json.dumps(given), stdout=subprocess.DEVNULL
        )
        try:
            while process.returncode is None and not self._drained:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_DRAIN_LOOK_S):
                        await process.wait()
        finally:
            if process.returncode is None:
                process.kill()
        code = await process.wait()
        if self._drained:
            return None
        if code == 0:
            return None
        if code != -signal.SIGKILL or not note.exists():
            raise RunError(f"a session of the rehearsal ended with exit code {code}", hint="Its output stands above.")
        return Crash(**json.loads(note.read_bytes()))


def _run(prepared: Prepared, speed: float) -> Run:
    clock, sleep = _faster(speed)
    return Run(prepared, RunDir(prepared.workspace / "run"), clock=clock, sleep=sleep)


def _faster(speed: float) -> tuple[Callable[[], float], Callable[[float], Awaitable[None]]]:
    async def sleep(seconds: float) -> None:
        await asyncio.sleep(seconds / speed)

    return lambda: time.monotonic() * speed, sleep


def _speed(recipe: Recipe) -> float:
    """How much faster the clock may run so that this machine still follows."""
    rate = 0.0
    for name in teachers_used(recipe):
        config = recipe.teachers[name]
        rates = [limit for limit in (config.limits.requests_per_minute, config.simulate.requests_per_minute) if limit]
        most = config.max_concurrency / max(config.simulate.latency_s, 0.001)
        rate = max(rate, min([most, *(limit / 60 for limit in rates)]))
    return max(1.0, min(_FASTEST, _PER_SECOND / rate)) if rate else 1.0


def _next_folder(parent: Path, name: str) -> Path:
    taken = [int(path.name.rpartition("-")[2]) for path in parent.glob(f"{name}-*") if path.name[-1:].isdecimal()]
    return parent / f"{name}-{max(taken, default=0) + 1}"


async def _session(given: dict[str, Any]) -> None:
    """A session that kills itself once enough answers are stored."""
    plan = Plan(given["behaviour"])
    folder = Path(given["folder"])
    prepared = replace(prepare(rehearsed(load_recipe(Path(given["path"])), plan)), workspace=folder, store=None)
    run = _run(prepared, given["speed"])
    began = time.monotonic()

    async def watch() -> None:
        while True:
            await asyncio.sleep(_LOOK_S)
            progress = run.progress()
            if progress.requests - progress.in_flight >= given["after"]:
                crash = {
                    "requests": progress.requests,
                    "in_flight": progress.in_flight,
                    "seconds": (time.monotonic() - began) * given["speed"],
                }
                (folder / "crash.json").write_text(json.dumps(crash))
                os.kill(os.getpid(), signal.SIGKILL)

    watching = asyncio.create_task(watch())
    try:
        await run.execute()
    finally:
        watching.cancel()


if __name__ == "__main__":
    asyncio.run(_session(json.loads(sys.argv[1])))
